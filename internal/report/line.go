package report

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line is text as it may stand on one line of a terminal: what does not print, line
// ends of any kind among it, is escaped as in Go. A file's name may hold anything.
func Line(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == '\t' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(text[:n])
		} else {
			b.WriteString(strings.Trim(strconv.Quote(text[:n]), `"`))
		}
		text = text[n:]
	}
	return b.String()
}
