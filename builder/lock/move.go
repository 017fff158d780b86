package lock

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// All moves every pin.
const All = "all"

// Moves returns which requests the names mean: a request's name, the last part of
// an image's name, or All. A name that means none is an error.
func Moves(names []string, asked []Request) (func(Request) bool, error) {
	means := func(name string, r Request) bool { return name == All || name == r.Name || name == path.Base(r.Name) }
	for _, name := range names {
		if !slices.ContainsFunc(asked, func(r Request) bool { return means(name, r) }) {
			var known []string
			for _, r := range asked {
				known = append(known, path.Base(r.Name))
			}
			slices.Sort(known)
			return nil, fault.New(fault.Usage, "--update %s: nothing of that name is asked for; there are %s and all", name, strings.Join(slices.Compact(known), ", "))
		}
	}
	return func(r Request) bool {
		return slices.ContainsFunc(names, func(name string) bool { return means(name, r) })
	}, nil
}

// Change is one pin that differs between two states of a lock. Old or New is
// empty where the pin is new or gone.
type Change struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	Old  string `json:"old,omitempty"` // version, and digest where the version stays
	New  string `json:"new,omitempty"`
}

// String is the change on one line.
func (c Change) String() string {
	switch {
	case c.Old == "":
		return fmt.Sprintf("+ %s %s %s", c.Kind, c.Name, c.New)
	case c.New == "":
		return fmt.Sprintf("- %s %s %s", c.Kind, c.Name, c.Old)
	}
	return fmt.Sprintf("~ %s %s %s -> %s", c.Kind, c.Name, c.Old, c.New)
}

// Changes says how pins differ, sorted by kind and name.
func Changes(before, after []Pin) []Change {
	type key struct {
		kind Kind
		name string
	}
	index := func(pins []Pin) map[key]Pin {
		out := map[key]Pin{}
		for _, p := range pins {
			name := p.Name
			if p.Kind == KindImage { // its tag is its version
				name = p.Request
			}
			out[key{p.Kind, name}] = p
		}
		return out
	}
	was, is := index(before), index(after)
	keys := map[key]bool{}
	for k := range was {
		keys[k] = true
	}
	for k := range is {
		keys[k] = true
	}
	var out []Change
	for k := range maps.Keys(keys) {
		old, had := was[k]
		now, has := is[k]
		c := Change{Kind: k.kind, Name: k.name, Old: old.Version, New: now.Version}
		switch {
		case had && has && old.Digest == now.Digest && old.Version == now.Version:
			continue
		case had && has && old.Version == now.Version:
			c.Old, c.New = old.Version+" "+old.Digest, now.Version+" "+now.Digest
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Change) int {
		return strings.Compare(string(a.Kind)+" "+a.Name, string(b.Kind)+" "+b.Name)
	})
	return out
}
