package dpkg

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// root is the tree that the deeds are done to.
type root struct {
	*tree.Tree
	packages []*Package
	users    users
}

func (r *root) act(p *Package, d Deeds) error {
	for _, f := range d.Dirs {
		if err := r.make(f, fs.ModeDir|0o755, ""); err != nil {
			return err
		}
	}
	for _, to := range slices.Sorted(maps.Keys(d.Copies)) {
		if err := r.copy(to, d.Copies[to]); err != nil {
			return err
		}
	}
	for _, f := range d.Files {
		if err := r.make(f, 0o644, p.special(f.Text)); err != nil {
			return err
		}
	}
	for _, at := range slices.Sorted(maps.Keys(d.Links)) {
		if err := r.link(at, p.special(d.Links[at])); err != nil {
			return err
		}
	}
	for _, f := range d.Owners {
		if err := r.own(f); err != nil {
			return err
		}
	}
	for _, at := range d.Remove {
		r.Remove(p.special(at))
	}
	for _, nss := range d.nss {
		if err := r.installNSS(nss); err != nil {
			return err
		}
	}
	return nil
}

// make puts a file or folder that is not there yet. Its owner and mode are set in any case.
func (r *root) make(f File, mode fs.FileMode, text string) error {
	at, err := r.inside(f.Path)
	if err != nil {
		return err
	}
	n, ok := r.Get(at)
	if !ok {
		fresh := tree.Node{Mode: mode}
		if !mode.IsDir() {
			fresh.Content = tree.Bytes(text)
		}
		if err := r.Put(at, fresh); err != nil {
			return err
		}
		n, _ = r.Get(at)
	}
	return r.claim(n, f)
}

func (r *root) own(f File) error {
	_, n, err := r.Resolve(f.Path)
	if err != nil {
		return err
	}
	return r.claim(n, f)
}

// claim gives an entry the owner and mode that f names.
func (r *root) claim(n *tree.Node, f File) error {
	if f.User != "" {
		id, ok := r.users.user(f.User)
		if !ok {
			return fmt.Errorf("%s: there is no user %s", f.Path, f.User)
		}
		n.UID = id
	}
	if f.Group != "" {
		id, ok := r.users.group(f.Group)
		if !ok {
			return fmt.Errorf("%s: there is no group %s", f.Path, f.Group)
		}
		n.GID = id
	}
	if f.Mode != "" {
		bits, err := strconv.ParseUint(f.Mode, 8, 12)
		if err != nil {
			return fmt.Errorf("%s: mode %q is not octal", f.Path, f.Mode)
		}
		n.Mode = n.Mode.Type() | fileMode(uint32(bits))
	}
	return nil
}

// copy is cp -p where nothing is there yet.
func (r *root) copy(to, from string) error {
	_, n, err := r.Resolve(from)
	if err != nil {
		return err
	}
	at, err := r.inside(to)
	if err != nil {
		return err
	}
	if _, ok := r.Get(at); ok {
		return nil
	}
	return r.Put(at, *n)
}

// link makes a link, in place of an empty folder, too.
func (r *root) link(at, target string) error {
	at, err := r.inside(at)
	if err != nil {
		return err
	}
	return r.replace(at, tree.Node{Mode: fs.ModeSymlink | 0o777, Link: target})
}

// text puts a file of root's, 0644, over what is there.
func (r *root) text(at string, text []byte) error {
	return r.replace(at, tree.Node{Mode: 0o644, Content: tree.Bytes(text)})
}

// replace puts an entry where nothing, a file, a link or an empty folder is: with a full
// folder all that packages have in it would be gone.
func (r *root) replace(at string, n tree.Node) error {
	if old, ok := r.Get(at); ok && old.Mode.IsDir() && !n.Mode.IsDir() {
		for _, p := range r.Paths() {
			if !strings.HasPrefix(p, at+"/") {
				continue
			}
			for _, other := range r.packages {
				if _, ok := other.Files.Get(p); ok {
					return fault.New(fault.Spec, "/%s would no longer be a folder, and package %s %s has /%s; %s", at, other.Name, other.Version, p, WayOut)
				}
			}
			return fault.New(fault.Spec, "/%s would no longer be a folder, and holds /%s; %s", at, p, WayOut)
		}
	}
	return r.Put(at, n)
}

// inside follows links in the folders above p.
func (r *root) inside(p string) (string, error) {
	dir, base := path.Split(path.Clean("/" + p))
	real, _, err := r.Resolve(dir)
	if err != nil {
		return tree.Clean(p) // the folder is not there yet
	}
	return path.Join(real, base), nil
}

// fileMode turns the permission bits of stat(2) into those of io/fs.
func fileMode(unix uint32) fs.FileMode {
	m := fs.FileMode(unix) & fs.ModePerm
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if unix&bit != 0 {
			m |= flag
		}
	}
	return m
}

// installNSS puts a service into nsswitch.conf(5), as dh_installnss does:
// "hosts/myhostname from libnss-myhostname in position after=files", or "in position last".
func (r *root) installNSS(what string) error {
	words := strings.Fields(what)
	db, service, _ := strings.Cut(words[0], "/")
	after, ok := strings.CutPrefix(words[len(words)-1], "after=")
	last := words[len(words)-1] == "last"
	if !ok && !last {
		return fmt.Errorf("name service %s: position %q is unknown", service, words[len(words)-1])
	}
	const file = "etc/nsswitch.conf"
	old, err := r.ReadFile(file)
	if err != nil {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(old)) {
		fields := strings.Fields(line)
		switch found := len(fields) > 0 && fields[0] == db+":" && !slices.Contains(fields, service); {
		case found && last:
			line = strings.TrimSuffix(line, "\n") + " " + service + "\n"
		case found:
			line = strings.Replace(line, " "+after, " "+after+" "+service, 1)
		}
		out.WriteString(line)
	}
	return r.text(file, []byte(out.String()))
}
