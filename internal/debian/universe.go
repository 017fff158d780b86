package debian

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
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
	return deb.CompareVersions(p.Version, than.Version) > 0
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

// relations reads a package's field such as Depends as it is for the architecture.
func (u *Universe) relations(p *Package, field, text string) ([]deb.Alternatives, error) {
	out, err := deb.ParseRelations(text, u.arch)
	if err != nil {
		return nil, fmt.Errorf("package %s: %s: %w", p, field, err)
	}
	return out, nil
}

// metBy says whether a package, or something that it provides, is what is wanted.
func (u *Universe) metBy(a deb.Relation, p *Package) bool {
	switch a.Arch {
	case "", u.arch:
	case "any":
		if p.multiArch != "allowed" { // deb-control(5), Multi-Arch
			return false
		}
	default:
		return false
	}
	if p.Name == a.Package && a.Satisfies(p.Version) {
		return true
	}
	for _, v := range u.provided(p) {
		if v.Package == a.Package && (a.Operator == "" || v.Operator == "=" && a.Satisfies(v.Version)) {
			return true
		}
	}
	return false
}

// provided is what a package provides: virtual names, some with a version (Debian policy 7.5).
func (u *Universe) provided(p *Package) []deb.Relation {
	if p.provides == "" || p.virtual != nil {
		return p.virtual
	}
	rels, _ := u.relations(p, "Provides", p.provides) // what cannot be read provides nothing
	p.virtual = []deb.Relation{}
	for _, r := range rels {
		p.virtual = append(p.virtual, r...)
	}
	return p.virtual
}

// targets are the candidates that meet an alternative, as apt tries them.
func (u *Universe) targets(a deb.Relation) []*Package {
	var out []*Package
	if p := u.candidate(a.Package); p != nil && u.metBy(a, p) {
		out = append(out, p)
	}
	for _, p := range u.providing(a.Package) {
		if !slices.Contains(out, p) && u.metBy(a, p) {
			out = append(out, p)
		}
	}
	return out
}

// nearest says what there is instead of what an alternative wants.
func (u *Universe) nearest(a deb.Relation) string {
	var have []string
	for _, p := range u.versions[a.Package] {
		have = append(have, p.String())
	}
	if len(have) > 0 {
		return "the nearest is " + strings.Join(have, ", ")
	}
	for _, p := range u.providing(a.Package) {
		for _, v := range u.provided(p) {
			if v.Package == a.Package {
				have = append(have, fmt.Sprintf("%s of %s", v, p.Name))
			}
		}
	}
	if len(have) > 0 {
		return "the nearest is " + strings.Join(have, ", ")
	}
	return "no package has that name"
}
