package deb

import "pault.ag/go/debian/version"

// Satisfies says whether a version is what the relation wants (deb-version(7)); what is none satisfies nothing.
func (r Relation) Satisfies(number string) bool {
	if r.Operator == "" {
		return true
	}
	have, err1 := version.Parse(number)
	want, err2 := version.Parse(r.Version)
	if err1 != nil || err2 != nil {
		return false
	}
	c := version.Compare(have, want)
	switch r.Operator {
	case "<<":
		return c < 0
	case "<=", "<":
		return c <= 0
	case "=":
		return c == 0
	case ">=", ">":
		return c >= 0
	case ">>":
		return c > 0
	}
	return false
}
