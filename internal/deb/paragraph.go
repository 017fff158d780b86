package deb

import (
	"fmt"
	"strings"
)

// Field is one field of a control paragraph: its value is as written, continuation
// lines included, without the line feed at its end.
type Field struct{ Name, Value string }

// Paragraph is a control paragraph (deb822(5)), its fields in their order.
type Paragraph []Field

// ParseParagraph reads one paragraph.
func ParseParagraph(text string) (Paragraph, error) {
	var p Paragraph
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case line == "":
			return nil, fmt.Errorf("more than one paragraph")
		case line[0] == ' ' || line[0] == '\t':
			if len(p) == 0 {
				return nil, fmt.Errorf("a continuation line %q before any field", line)
			}
			p[len(p)-1].Value += "\n" + line
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok || name == "" {
				return nil, fmt.Errorf("line %q is no field", line)
			}
			if p.Get(name) != "" {
				return nil, fmt.Errorf("field %s comes twice", name)
			}
			p = append(p, Field{name, strings.TrimLeft(value, " \t")})
		}
	}
	return p, nil
}

// Get returns a field's value, or "". The case of its name does not matter.
func (p Paragraph) Get(name string) string {
	for _, f := range p {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// Relation is one alternative of a field such as Depends: a package, an operator
// (<<, <=, =, >=, >> or none) and a version.
type Relation struct{ Package, Operator, Version string }

// Relations reads a field of relations: those that are separated by commas, each with its alternatives.
func (p Paragraph) Relations(field string) (out [][]Relation) {
	for all := range strings.SplitSeq(p.Get(field), ",") {
		var either []Relation
		for one := range strings.SplitSeq(all, "|") {
			name, rest, _ := strings.Cut(strings.TrimSpace(one), "(")
			name, _, _ = strings.Cut(strings.TrimSpace(name), ":") // an architecture
			rest, _, _ = strings.Cut(rest, ")")
			op := strings.TrimRight(rest[:len(rest)-len(strings.TrimLeft(rest, "<>="))], " ")
			if name != "" {
				either = append(either, Relation{name, op, strings.TrimSpace(rest[len(op):])})
			}
		}
		if either != nil {
			out = append(out, either)
		}
	}
	return out
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
