package dpkg

import (
	"io/fs"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// merged are the links of a merged /usr: what lies below them lies in /usr.
var merged = map[string]bool{"bin": true, "sbin": true, "lib": true, "lib32": true, "lib64": true, "libo32": true, "libx32": true}

// union lays the packages over each other. As with dpkg, a folder stays as the first
// package that has it made it, no link of a package takes a folder's place, and a file
// belongs to one package unless another declares that it replaces that one, or the file is diverted.
func union(packages []*Package, diverted map[string]diversion) (*tree.Tree, error) {
	u := &unifier{tree: tree.New(), owner: map[string]*Package{}, diverted: diverted}
	for _, p := range packages {
		if err := p.Files.Walk(func(at string, n *tree.Node) error { return u.add(p, at, n) }); err != nil {
			return nil, err
		}
	}
	return u.tree, nil
}

type unifier struct {
	tree     *tree.Tree
	owner    map[string]*Package // of folders, who had it first
	diverted map[string]diversion
}

func (u *unifier) add(p *Package, at string, n *tree.Node) error {
	if d, ok := u.diverted["/"+at]; ok && d.by != p.Name {
		at = strings.TrimPrefix(d.to, "/")
	}
	at, err := u.place(p, at)
	if err != nil {
		return err
	}
	old, there := u.tree.Get(at)
	if there && old.Mode.IsDir() && (n.Mode.IsDir() || n.Mode&fs.ModeSymlink != 0) {
		return nil
	}
	if there && n.Mode.IsDir() && u.leadsToFolder(at, old) {
		return nil // dpkg keeps a link to a folder in a folder's place
	}
	other := u.owner[at]
	switch {
	case !there:
	case old.Mode.IsDir() || n.Mode.IsDir():
		return fault.New(fault.Spec, "%s and %s %s both have /%s, and it is a folder in one of them only: leave one out of base.packages", u.who(at), p.Name, p.Version, at)
	case other == nil || other == p || p.replaces(other):
	case other.replaces(p):
		return nil
	default:
		return fault.New(fault.Spec, "%s and %s %s both have /%s, and neither replaces the other: leave one out of base.packages", u.who(at), p.Name, p.Version, at)
	}
	u.owner[at] = p
	return u.tree.Put(at, *n)
}

// place follows the links of a merged /usr in the folders above at. Any other link
// there was another package's, and could lead anywhere.
func (u *unifier) place(p *Package, at string) (string, error) {
	top, rest, deep := strings.Cut(at, "/")
	if n, ok := u.tree.Get(top); ok && deep && n.Mode&fs.ModeSymlink != 0 && merged[top] && path.Join("/", n.Link) == "/usr/"+top {
		at = "usr/" + top + "/" + rest
	}
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		n, ok := u.tree.Get(dir)
		if !ok || n.Mode.IsDir() {
			continue
		}
		return "", fault.New(fault.Spec, "package %s %s has /%s, but /%s is a link or a file of %s: nothing is laid out through it", p.Name, p.Version, at, dir, u.who(dir))
	}
	return at, nil
}

// who is whose an entry is.
func (u *unifier) who(at string) string {
	if p := u.owner[at]; p != nil {
		return "package " + p.Name + " " + p.Version
	}
	return "another package"
}

// leadsToFolder says whether n is a link to a folder of the tree.
func (u *unifier) leadsToFolder(at string, n *tree.Node) bool {
	if n.Mode&fs.ModeSymlink == 0 {
		return false
	}
	target := n.Link
	if !path.IsAbs(target) {
		target = path.Join("/", path.Dir(at), target)
	}
	_, end, err := u.tree.Resolve(target)
	return err == nil && end.Mode.IsDir()
}

// replaces says whether p may take other's files (Debian policy 7.6.1).
func (p *Package) replaces(other *Package) bool {
	all, _ := deb.ParseRelations(p.Control.Get("Replaces"), p.Arch) // what cannot be read replaces nothing
	for _, either := range all {
		for _, r := range either {
			if r.Package == other.Name && r.Satisfies(other.Version) {
				return true
			}
		}
	}
	return false
}
