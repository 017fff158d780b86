package debian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// longestLine bounds one line of a control file; the longest in Debian has some 100 kB.
const longestLine = 4 << 20

// paragraph is one stanza: the wanted fields by their name. A field of several
// lines has them as they stand, without the space that begins each.
type paragraph map[string]string

// eachParagraph reads deb822(5) and calls fn for each stanza with those of its
// fields that are wanted, which are spelt as here; nil wants all. The paragraph is
// fn's until it returns.
func eachParagraph(r io.Reader, wanted []string, fn func(paragraph) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), longestLine)
	p, field, open := paragraph{}, "", false
	var value []byte // of field, so far
	keep := func() {
		if field != "" {
			p[field] = string(value)
		}
	}
	end := func() error {
		if !open {
			return nil
		}
		keep()
		err := fn(p)
		clear(p)
		field, open = "", false
		return err
	}
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimRight(lines.Bytes(), " \t\r")
		switch {
		case len(line) == 0:
			if err := end(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if !open {
				return fmt.Errorf("line %d continues no field", n)
			}
			if field != "" {
				value = append(append(value, '\n'), line[1:]...)
			}
		default:
			key, rest, ok := bytes.Cut(line, []byte(":"))
			if !ok || len(key) == 0 {
				return fmt.Errorf("line %d is no field", n)
			}
			keep()
			open, field = true, name(key, wanted)
			if field == "" {
				continue
			}
			if _, twice := p[field]; twice {
				return fmt.Errorf("line %d: %s stands there twice", n, field)
			}
			value = append(value[:0], bytes.TrimSpace(rest)...)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes", longestLine)
	} else if err != nil {
		return err
	}
	return end()
}

// name is a field's name as it is wanted, or empty.
func name(key []byte, wanted []string) string {
	if wanted == nil {
		return string(key)
	}
	if i := slices.IndexFunc(wanted, func(w string) bool { return len(w) == len(key) && strings.EqualFold(w, string(key)) }); i >= 0 {
		return wanted[i]
	}
	return ""
}
