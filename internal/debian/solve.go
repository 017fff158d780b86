package debian

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// ErrUnsolvable says that no set of packages has all that was asked for.
var ErrUnsolvable = errors.New("the packages cannot be had together")

// most bounds the work of solving; Debian's own sets take some thousand steps.
const most = 1 << 17

// Solve finds the closed set of the essential packages and the named ones, with
// their Pre-Depends and Depends and without Recommends, sorted by name. It decides
// as apt does: what is asked for counts before what is found, then depth first, the
// first alternative that can be had, and candidates only. Where two choices conflict
// the one that has another way is not taken again. It does not look further than
// that, and then says what stands against what.
func (u *Universe) Solve(names []string) ([]*Package, error) {
	asked := u.essential()
	for _, name := range names {
		p, err := u.named(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(asked, p) {
			asked = append(asked, p)
		}
	}
	shunned, steps := map[*Package]bool{}, 0
	for first := (*broken)(nil); ; {
		s := newSolution(u, shunned, &steps)
		bad := s.all(asked)
		if bad == nil {
			return s.sorted(), nil
		}
		if first == nil {
			first = bad
		}
		if len(bad.ways) == 0 {
			return nil, fmt.Errorf("%w: %s", ErrUnsolvable, first)
		}
		shunned[bad.ways[0]] = true // never twice: what is shunned is not chosen where there is a choice
	}
}

// named is the candidate that a name stands for: its own, or the only one that provides it.
func (u *Universe) named(name string) (*Package, error) {
	if p := u.candidate(name); p != nil {
		return p, nil
	}
	switch ps := u.providing(name); len(ps) {
	case 0:
		var where []string
		for _, s := range u.sources {
			where = append(where, s.Suite)
		}
		return nil, fmt.Errorf("%w: %s has no package %q for %s; look for its name in this suite", ErrUnsolvable, strings.Join(where, ", "), name, u.arch)
	case 1:
		return ps[0], nil
	default:
		var have []string
		for _, p := range ps {
			have = append(have, p.Name)
		}
		return nil, fmt.Errorf("%w: %q is no package; name one of those that provide it: %s", ErrUnsolvable, name, strings.Join(have, ", "))
	}
}

// solution is a set in the making. What is chosen is kept in order, so that a way
// that led nowhere can be gone back.
type solution struct {
	u        *Universe
	shunned  map[*Package]bool
	order    []*Package
	chosen   map[*Package]choice
	names    map[string][]*Package // chosen packages by name and by what they provide
	against  map[string][]enmity   // what chosen packages may not stand beside, by name
	hopeless map[*Package]*broken  // what cannot be had in any set
	steps    *int                  // of all tries
}

// choice is why a package is there: by is nil for what was asked for.
type choice struct {
	by   *Package
	free bool // there was another way
}

// enmity is one alternative of a chosen package's Conflicts or Breaks.
type enmity struct {
	of   *Package
	verb string
	what deb.Relation
}

// broken says why a package cannot be had, from the one asked for down.
type broken struct {
	chain []string
	why   string
	final bool       // so in every set: something is missing, or stands against what is asked for
	ways  []*Package // what brought in what it stands against, where there was another way
}

func (b *broken) String() string { return strings.Join(append(slices.Clone(b.chain), b.why), ", ") }

func (b *broken) clone() *broken {
	return &broken{slices.Clone(b.chain), b.why, b.final, slices.Clone(b.ways)}
}

func newSolution(u *Universe, shunned map[*Package]bool, steps *int) *solution {
	return &solution{u: u, shunned: shunned, steps: steps, chosen: map[*Package]choice{}, names: map[string][]*Package{}, against: map[string][]enmity{}, hopeless: map[*Package]*broken{}}
}

// all chooses what is asked for, and then what that needs.
func (s *solution) all(asked []*Package) *broken {
	for _, p := range asked {
		if bad := s.choose(p, choice{}); bad != nil {
			return bad
		}
	}
	done := map[*Package]bool{}
	for _, p := range asked {
		if bad := s.complete(p, done); bad != nil {
			return bad
		}
	}
	return nil
}

// choose adds a package, if it goes with what is chosen.
func (s *solution) choose(p *Package, why choice) *broken {
	if *s.steps++; *s.steps > most {
		return &broken{why: fmt.Sprintf("no end after %d steps", most)}
	}
	enemies, err := s.u.enmities(p)
	if err != nil {
		return &broken{why: err.Error()}
	}
	for _, e := range enemies {
		for _, q := range s.names[e.what.Package] {
			if s.meet(e, q) {
				return s.clash(e, q, p)
			}
		}
	}
	called := s.called(p)
	for _, name := range called {
		for _, e := range s.against[name] {
			if s.meet(e, p) {
				return s.clash(e, p, e.of)
			}
		}
	}
	s.order = append(s.order, p)
	s.chosen[p] = why
	for _, name := range called {
		s.names[name] = append(s.names[name], p)
	}
	for _, e := range enemies {
		s.against[e.what.Package] = append(s.against[e.what.Package], e)
	}
	return nil
}

// meet says whether an enmity is with that package. Nothing is its own enemy (Debian policy 7.4).
func (s *solution) meet(e enmity, p *Package) bool {
	return e.of.Name != p.Name && s.u.metBy(e.what, p)
}

// clash tells of two packages, one of which was chosen before.
func (s *solution) clash(e enmity, with, second *Package) *broken {
	first := with
	if first == second {
		first = e.of
	}
	var because string
	if by := s.chosen[first].by; by != nil {
		because = fmt.Sprintf(" (%s needs it)", by.Name)
	}
	bad := &broken{why: fmt.Sprintf("%s %s %s, and %s is there%s", e.of.Name, e.verb, e.what, with, because), final: s.chosen[first].by == nil}
	for p := first; p != nil; p = s.chosen[p].by {
		if s.chosen[p].free {
			bad.ways = append(bad.ways, p)
		}
	}
	return bad
}

// called is a package's name and what it provides.
func (s *solution) called(p *Package) []string {
	out := []string{p.Name}
	for _, v := range s.u.provided(p) {
		if !slices.Contains(out, v.Package) {
			out = append(out, v.Package)
		}
	}
	return out
}

// goBack takes back all but the first n packages.
func (s *solution) goBack(n int, done map[*Package]bool) {
	for len(s.order) > n {
		p := s.order[len(s.order)-1]
		s.order = s.order[:len(s.order)-1]
		delete(s.chosen, p)
		delete(done, p)
		for _, name := range s.called(p) {
			s.names[name] = slices.DeleteFunc(s.names[name], func(q *Package) bool { return q == p })
		}
		enemies, _ := s.u.enmities(p) // read once before
		for _, e := range enemies {
			s.against[e.what.Package] = slices.DeleteFunc(s.against[e.what.Package], func(f enmity) bool { return f.of == p })
		}
	}
}

// complete chooses what a chosen package needs. What is being completed further up
// is in done already: loops end there.
func (s *solution) complete(p *Package, done map[*Package]bool) *broken {
	if done[p] {
		return nil
	}
	done[p] = true
	for _, field := range []struct{ name, verb, text string }{{"Pre-Depends", "pre-depends on", p.preDepends}, {"Depends", "depends on", p.depends}} {
		rels, err := s.u.relations(p, field.name, field.text)
		if err != nil {
			return &broken{why: err.Error()}
		}
		for _, rel := range rels {
			if bad := s.meetRelation(p, rel, done); bad != nil {
				bad.chain = append([]string{fmt.Sprintf("%s %s %s", p.Name, field.verb, rel)}, bad.chain...)
				return bad
			}
		}
	}
	return nil
}

// meetRelation makes one relation hold: by what is chosen, else by the first target that can be had.
func (s *solution) meetRelation(p *Package, rel deb.Alternatives, done map[*Package]bool) *broken {
	var targets []*Package
	for _, a := range rel {
		for _, q := range s.names[a.Package] {
			if s.u.metBy(a, q) {
				return nil
			}
		}
		targets = append(targets, s.u.targets(a)...)
	}
	var first *broken
	final := true
	for _, q := range targets {
		if s.shunned[q] {
			final = false
			continue
		}
		bad := s.try(q, choice{p, len(targets) > 1}, done)
		if bad == nil {
			return nil
		}
		final = final && bad.final
		if first == nil || len(first.ways) == 0 && len(bad.ways) > 0 {
			first = bad
		}
	}
	if first == nil {
		first = &broken{why: "which nothing has (" + s.u.nearest(rel[0]) + ")"}
	}
	first.final = final
	return first
}

// try chooses a package with all that it needs, or changes nothing.
func (s *solution) try(q *Package, why choice, done map[*Package]bool) *broken {
	if bad := s.hopeless[q]; bad != nil {
		return bad.clone()
	}
	before := len(s.order)
	bad := s.choose(q, why)
	if bad == nil {
		bad = s.complete(q, done)
	}
	if bad == nil {
		return nil
	}
	s.goBack(before, done)
	if bad.final {
		s.hopeless[q] = bad.clone()
	}
	return bad
}

// enmities are a package's Conflicts and Breaks.
func (u *Universe) enmities(p *Package) ([]enmity, error) {
	var out []enmity
	for _, field := range []struct{ name, verb, text string }{{"Conflicts", "conflicts with", p.conflicts}, {"Breaks", "breaks", p.breaks}} {
		rels, err := u.relations(p, field.name, field.text)
		if err != nil {
			return nil, err
		}
		for _, rel := range rels {
			for _, a := range rel {
				out = append(out, enmity{p, field.verb, a})
			}
		}
	}
	return out, nil
}

func (s *solution) sorted() []*Package {
	slices.SortFunc(s.order, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return s.order
}
