package debian

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"pault.ag/go/debian/dependency"
	"pault.ag/go/debian/version"
)

// Universe is all packages of some sources, for one architecture. Of each name the
// candidate is what apt would take: the highest version of the highest pin priority.
type Universe struct {
	arch      string
	sources   []Source
	count     int
	versions  map[string][]*Package // by name, the candidate first
	providers map[string][]*Package // candidates by what they provide, as apt prefers them; made when first asked for
}

func newUniverse(arch string) *Universe {
	return &Universe{arch: arch, versions: map[string][]*Package{}}
}

// Len is how many packages there are, older versions included.
func (u *Universe) Len() int { return u.count }

// add takes a package in, unless it is for another architecture or was there before.
func (u *Universe) add(p *Package) {
	if p.Arch != u.arch && p.Arch != "all" {
		return
	}
	all := u.versions[p.Name]
	if slices.ContainsFunc(all, func(q *Package) bool { return q.Version == p.Version }) {
		return
	}
	u.count++
	p.position = u.count
	all = append(all, p)
	if len(all) > 1 && better(p, all[0]) {
		all[0], all[len(all)-1] = p, all[0]
	}
	u.versions[p.Name] = all
}

func better(p, than *Package) bool {
	if p.weight != than.weight {
		return p.weight > than.weight
	}
	return compareVersions(p.Version, than.Version) > 0
}

// compareVersions compares as Debian policy 5.6.12 says. What is no version is lower than what is.
func compareVersions(a, b string) int {
	x, errX := version.Parse(a)
	y, errY := version.Parse(b)
	if errX != nil || errY != nil {
		return cmp.Compare(b2i(errX == nil), b2i(errY == nil))
	}
	return version.Compare(x, y)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// candidate is the package of that name that would be installed, or nil.
func (u *Universe) candidate(name string) *Package {
	if all := u.versions[name]; len(all) > 0 {
		return all[0]
	}
	return nil
}

// essential are the candidates that every system has (Debian policy 3.8), by name.
func (u *Universe) essential() []*Package {
	var out []*Package
	for _, all := range u.versions {
		if all[0].essential {
			out = append(out, all[0])
		}
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// providing are the candidates that provide a name, in the order in which apt takes
// them: essential ones, then important ones, then by priority, then what was read last.
func (u *Universe) providing(name string) []*Package {
	if u.providers == nil {
		u.providers = map[string][]*Package{}
		for _, all := range u.versions {
			for virtual := range strings.SplitSeq(all[0].provides, ",") {
				virtual, _, _ = strings.Cut(strings.TrimSpace(virtual), " ")
				virtual, _, _ = strings.Cut(virtual, ":")
				virtual, _, _ = strings.Cut(virtual, "(")
				if virtual != "" {
					u.providers[virtual] = append(u.providers[virtual], all[0])
				}
			}
		}
		for _, ps := range u.providers {
			slices.SortFunc(ps, func(a, b *Package) int {
				return cmp.Or(cmp.Compare(b2i(b.essential), b2i(a.essential)), cmp.Compare(b2i(b.important), b2i(a.important)),
					cmp.Compare(a.priority, b.priority), cmp.Compare(b.position, a.position))
			})
		}
	}
	return u.providers[name]
}

// relation is one relation: alternatives of which one will do.
type relation struct {
	alternatives []alternative
}

type alternative struct {
	name, arch string // arch is empty, any, or an architecture's name
	op, number string // op is empty where any version will do
}

func (r relation) String() string {
	var out []string
	for _, a := range r.alternatives {
		out = append(out, a.String())
	}
	return strings.Join(out, " | ")
}

func (a alternative) String() string {
	s := a.name
	if a.arch != "" {
		s += ":" + a.arch
	}
	if a.op != "" {
		s += fmt.Sprintf(" (%s %s)", a.op, a.number)
	}
	return s
}

// relations reads a field such as Depends (Debian policy 7.1) as it is for the architecture.
func (u *Universe) relations(p *Package, field, text string) (out []relation, err error) {
	if text == "" {
		return nil, nil
	}
	defer func() { // the library panics at an architecture of many parts
		if r := recover(); r != nil {
			err = fmt.Errorf("package %s: %s: %q: %v", p, field, text, r)
		}
	}()
	parsed, err := dependency.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("package %s: %s: %q: %w", p, field, text, err)
	}
	own, err := dependency.ParseArch(u.arch)
	if err != nil {
		return nil, err
	}
	for _, r := range parsed.Relations {
		var rel relation
		for _, may := range r.Possibilities {
			if may.Architectures != nil && len(may.Architectures.Architectures) > 0 && !may.Architectures.Matches(own) {
				continue
			}
			a := alternative{name: may.Name}
			if may.Arch != nil {
				a.arch = may.Arch.String()
			}
			if may.Version != nil {
				a.op, a.number = may.Version.Operator, may.Version.Number
				if _, err := version.Parse(a.number); err != nil || !slices.Contains(operators, a.op) {
					return nil, fmt.Errorf("package %s: %s: %q is no version to hold against", p, field, a.op+" "+a.number)
				}
			}
			rel.alternatives = append(rel.alternatives, a)
		}
		if len(rel.alternatives) > 0 {
			out = append(out, rel)
		}
	}
	return out, nil
}

// operators are those of Debian policy 7.1.
var operators = []string{"<<", "<=", "=", ">=", ">>"}

func holds(v, op, number string) bool {
	c := compareVersions(v, number)
	switch op {
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
	return op == ""
}

// metBy says whether a package, or something that it provides, is what is wanted.
func (u *Universe) metBy(a alternative, p *Package) bool {
	switch a.arch {
	case "", u.arch:
	case "any":
		if p.multiArch != "allowed" { // deb-control(5), Multi-Arch
			return false
		}
	default:
		return false
	}
	if p.Name == a.name && holds(p.Version, a.op, a.number) {
		return true
	}
	for _, v := range u.provided(p) {
		if v.name == a.name && (a.op == "" || v.op == "=" && holds(v.number, a.op, a.number)) {
			return true
		}
	}
	return false
}

// provided is what a package provides: virtual names, some with a version (Debian policy 7.5).
func (u *Universe) provided(p *Package) []alternative {
	if p.provides == "" || p.virtual != nil {
		return p.virtual
	}
	rels, _ := u.relations(p, "Provides", p.provides) // what cannot be read provides nothing
	p.virtual = []alternative{}
	for _, r := range rels {
		p.virtual = append(p.virtual, r.alternatives...)
	}
	return p.virtual
}

// targets are the candidates that meet an alternative, as apt tries them.
func (u *Universe) targets(a alternative) []*Package {
	var out []*Package
	if p := u.candidate(a.name); p != nil && u.metBy(a, p) {
		out = append(out, p)
	}
	for _, p := range u.providing(a.name) {
		if !slices.Contains(out, p) && u.metBy(a, p) {
			out = append(out, p)
		}
	}
	return out
}

// nearest says what there is instead of what an alternative wants.
func (u *Universe) nearest(a alternative) string {
	var have []string
	for _, p := range u.versions[a.name] {
		have = append(have, p.String())
	}
	if len(have) > 0 {
		return "the nearest is " + strings.Join(have, ", ")
	}
	for _, p := range u.providing(a.name) {
		for _, v := range u.provided(p) {
			if v.name == a.name {
				have = append(have, fmt.Sprintf("%s of %s", v, p.Name))
			}
		}
	}
	if len(have) > 0 {
		return "the nearest is " + strings.Join(have, ", ")
	}
	return "no package has that name"
}
