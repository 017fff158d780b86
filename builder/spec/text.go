package spec

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// quote shows a value that the user wrote on one line and not longer than a line;
// control characters are escaped, so that nothing in a file can play with a terminal.
func quote(s string) string {
	const most = 60
	s = withoutSecret(s)
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// oneLine reports whether s can stand in a finding as a path or a key does, unquoted.
func oneLine(s string) bool {
	return len(s) <= maxText && firstBad([]byte(s)) < 0 && !strings.ContainsAny(s, "\t\r\n\u2028\u2029")
}

// withoutSecret takes out of a URL or reference what may be a password or a token:
// what stands before an "@" and after a "?".
func withoutSecret(s string) string {
	if i := strings.LastIndex(s, "@"); i >= 0 && strings.Contains(s[:i], ":") {
		s = "…" + s[i:]
	}
	if i := strings.Index(s, "?"); i >= 0 && strings.Contains(s[:i], "://") {
		s = s[:i] + "?…"
	}
	return s
}

// nearest returns the name that s was most likely meant to be, or "" if none is near.
func nearest(s string, names []string) string {
	if len(s) > maxText {
		return ""
	}
	best, least := "", 1+max(1, min(3, utf8.RuneCountInString(s)/3))
	for _, n := range names {
		if d := distance(strings.ToLower(s), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			change := 1
			if x[i-1] == y[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(x)][len(y)]
}

// bootstrapToken is kubeadm's form of one (BootstrapTokenPattern).
var bootstrapToken = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// packedKey is how a PEM block begins in base64, as kubeconfigs and Secrets have it, and what tells
// its kind.
var packedKey = regexp.MustCompile(`LS0tLS1CRUdJTi[A-Za-z0-9+/]{0,50}`)

// hasKey says whether a text holds what looks like a private key in PEM, as it is or in base64.
func hasKey(text string) bool {
	const mark = "PRIVATE KEY-----"
	return strings.Contains(text, mark) || slices.ContainsFunc(packedKey.FindAllString(text, -1), func(s string) bool {
		plain, _ := base64.StdEncoding.DecodeString(s[:len(s)/4*4]) // what is no base64 any more ends it
		return strings.Contains(string(plain), mark)
	})
}

// hasToken says whether a text holds what looks like a bootstrap token. A digit in the
// secret tells it from a name with a dot in it.
func hasToken(text string) bool {
	return slices.ContainsFunc(bootstrapToken.FindAllString(text, -1), func(t string) bool { return strings.ContainsAny(t[7:], "0123456789") })
}
