package deb

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

// mostFields bounds a paragraph; the longest in Debian has some 40.
const mostFields = 1000

// Field is one field of a control paragraph: its value is as written, continuation
// lines included, without blanks and line feeds at its end.
type Field struct{ Name, Value string }

// Paragraph is a control paragraph (deb822(5)), its fields in their order.
type Paragraph []Field

// EachParagraph calls fn for each paragraph with those of its fields that are wanted,
// which are spelt as here; nil wants all. The paragraph is fn's until it returns.
func EachParagraph(r io.Reader, wanted []string, fn func(Paragraph) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), longestLine)
	var p Paragraph
	name, open := "", false // of the field that is being read; between paragraphs none is open
	var value []byte
	keep := func() {
		if name != "" {
			p = append(p, Field{name, string(bytes.TrimRight(value, " \t\r\n"))})
		}
	}
	end := func() error {
		if !open {
			return nil
		}
		keep()
		err := fn(p)
		p, name, open = p[:0], "", false
		return err
	}
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		switch {
		case len(line) == 0 || line[0] <= ' ' && len(bytes.TrimSpace(line)) == 0:
			if err := end(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if !open {
				return fmt.Errorf("line %d continues no field", n)
			}
			if name != "" {
				value = append(append(value, '\n'), line...)
			}
		default:
			key, rest, ok := bytes.Cut(line, []byte(":"))
			if !ok || len(key) == 0 {
				return fmt.Errorf("line %d is no field", n)
			}
			keep()
			if open, name = true, spelt(key, wanted); name == "" {
				continue
			}
			if len(p) == mostFields {
				return fmt.Errorf("line %d: a paragraph has more than %d fields", n, mostFields)
			}
			if p.index(name) >= 0 {
				return fmt.Errorf("line %d: %s stands there twice", n, name)
			}
			value = append(value[:0], bytes.TrimLeft(rest, " \t")...)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("a line is longer than %d bytes", longestLine)
	} else if err != nil {
		return err
	}
	return end()
}

// spelt is a field's name as it is wanted, or empty.
func spelt(key []byte, wanted []string) string {
	if wanted == nil {
		return string(key)
	}
	if i := slices.IndexFunc(wanted, func(w string) bool { return len(w) == len(key) && strings.EqualFold(w, string(key)) }); i >= 0 {
		return wanted[i]
	}
	return ""
}

// ParseParagraph reads the one paragraph that a text has.
func ParseParagraph(text []byte) (p Paragraph, err error) {
	err = EachParagraph(bytes.NewReader(text), nil, func(one Paragraph) error {
		if p != nil {
			return errors.New("there is more than one paragraph")
		}
		p = slices.Clone(one)
		return nil
	})
	if err == nil && p == nil {
		err = errors.New("it is empty")
	}
	return p, err
}

// Get returns a field's value, or "". The case of its name does not matter.
func (p Paragraph) Get(name string) string {
	if i := p.index(name); i >= 0 {
		return p[i].Value
	}
	return ""
}

func (p Paragraph) index(name string) int {
	for i := range p {
		if len(p[i].Name) == len(name) && strings.EqualFold(p[i].Name, name) {
			return i
		}
	}
	return -1
}

// String is the paragraph's text, its fields in their order.
func (p Paragraph) String() string {
	var b strings.Builder
	for _, f := range p {
		if strings.HasPrefix(f.Value, "\n") {
			b.WriteString(f.Name + ":" + f.Value + "\n")
		} else {
			b.WriteString(f.Name + ": " + f.Value + "\n")
		}
	}
	return b.String()
}
