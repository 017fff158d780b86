package deb

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// Relation is what a field such as Depends wants: a package, for an architecture (empty,
// any, or a name) and of a version (no Operator: any will do).
type Relation struct{ Package, Arch, Operator, Version string }

// Alternatives are relations of which one will do.
type Alternatives []Relation

func (a Alternatives) String() string {
	var out []string
	for _, r := range a {
		out = append(out, r.String())
	}
	return strings.Join(out, " | ")
}

func (r Relation) String() string {
	s := r.Package
	if r.Arch != "" {
		s += ":" + r.Arch
	}
	if r.Operator != "" {
		s += fmt.Sprintf(" (%s %s)", r.Operator, r.Version)
	}
	return s
}

// operators are those of Debian policy 7.1.
var operators = []string{"<<", "<=", "=", ">=", ">>"}

// ParseRelations reads a field of relations (Debian policy 7.1) as it is for the architecture.
func ParseRelations(text, arch string) (out []Alternatives, err error) {
	if text == "" {
		return nil, nil
	}
	defer func() { // the library panics at an architecture of many parts
		if r := recover(); r != nil {
			err = fmt.Errorf("%q: %v", text, r)
		}
	}()
	parsed, err := dependency.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	own, err := dependency.ParseArch(arch)
	if err != nil {
		return nil, err
	}
	for _, r := range parsed.Relations {
		var either Alternatives
		for _, may := range r.Possibilities {
			if may.Architectures != nil && len(may.Architectures.Architectures) > 0 && !may.Architectures.Matches(own) {
				continue
			}
			one := Relation{Package: may.Name}
			if may.Arch != nil {
				one.Arch = may.Arch.String()
			}
			if may.Version != nil {
				one.Operator, one.Version = may.Version.Operator, may.Version.Number
				if _, err := version.Parse(one.Version); err != nil || !slices.Contains(operators, one.Operator) {
					return nil, fmt.Errorf("%q is no version to hold against", one.Operator+" "+one.Version)
				}
			}
			either = append(either, one)
		}
		if len(either) > 0 {
			out = append(out, either)
		}
	}
	return out, nil
}

// Satisfies says whether a version is what the relation wants.
func (r Relation) Satisfies(number string) bool {
	c := CompareVersions(number, r.Version)
	switch r.Operator {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	case ">>":
		return c > 0
	}
	return r.Operator == ""
}

// CompareVersions compares as Debian policy 5.6.12 says. What is no version is lower than what is.
func CompareVersions(a, b string) int {
	x, errX := version.Parse(a)
	y, errY := version.Parse(b)
	switch {
	case errX == nil && errY == nil:
		return version.Compare(x, y)
	case errX == nil:
		return 1
	case errY == nil:
		return -1
	}
	return cmp.Compare(a, b)
}
