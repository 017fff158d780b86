// Package tree holds a file system as a value: path → metadata and a reference
// to content. Nothing is ever unpacked on the host, so building needs no root
// and there is no symbolic link to follow by mistake.
//
// Paths are slash-separated, relative to the root, clean, and never start with
// "/" or contain ".."; the root itself is ".".
package tree

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Content is what a regular file holds. Open may be called many times.
type Content interface {
	Open() (io.ReadCloser, error)
	Size() int64
}

// Bytes is content held in memory.
type Bytes []byte

var _ Content = Bytes(nil)

// Open implements Content.
func (b Bytes) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }

// Size implements Content.
func (b Bytes) Size() int64 { return int64(len(b)) }

// Node is one entry. Mode holds the type and permission bits as in io/fs
// (ModeSetuid and friends included). Hard links are kept as equal Content.
type Node struct {
	Mode     fs.FileMode
	UID, GID int
	Link     string  // symbolic link target
	Content  Content // regular files only
	Rdev     uint32  // device nodes only, Linux encoding
	Xattrs   map[string]string
}

// Tree is a set of entries. The zero value is not ready: use New.
type Tree struct{ nodes map[string]*Node }

// New returns a tree that holds only its root, 0755 root:root.
func New() *Tree {
	return &Tree{nodes: map[string]*Node{".": {Mode: fs.ModeDir | 0o755}}}
}

// maxPath is Linux' PATH_MAX without the closing NUL.
const maxPath = 4095

// Clean turns a user's or an archive's path into the tree's form, or says why it cannot.
func Clean(p string) (string, error) {
	if strings.ContainsRune(p, 0) || len(p) > maxPath {
		return "", fmt.Errorf("path %q: NUL byte or longer than %d bytes", p, maxPath)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return "", fmt.Errorf("path %q: a '..' part climbs out", p)
		}
		if len(part) > 255 {
			return "", fmt.Errorf("path %q: a name is longer than 255 bytes", p)
		}
	}
	return path.Clean("./" + strings.TrimLeft(p, "/")), nil
}

// Put sets the entry at p; missing parents are made 0755 root:root. A parent
// that is not a directory is an error, and so is a root that is not one.
func (t *Tree) Put(p string, n Node) error {
	p, err := Clean(p)
	if err != nil {
		return err
	}
	if p == "." && !n.Mode.IsDir() {
		return fmt.Errorf("path %q: the root must be a directory", p)
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if parent, ok := t.nodes[dir]; ok && !parent.Mode.IsDir() {
			return fmt.Errorf("path %q: parent %q is not a directory", p, dir)
		}
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.nodes[dir]; !ok {
			t.nodes[dir] = &Node{Mode: fs.ModeDir | 0o755}
		}
	}
	if old, ok := t.nodes[p]; ok && old.Mode.IsDir() && !n.Mode.IsDir() {
		t.Remove(p)
	}
	t.nodes[p] = &n
	return nil
}

// Get returns the entry at p itself (no link is followed).
func (t *Tree) Get(p string) (*Node, bool) {
	p, err := Clean(p)
	if err != nil {
		return nil, false
	}
	n, ok := t.nodes[p]
	return n, ok
}

// Resolve follows symbolic links, inside the tree, for every part of p and
// returns the path of what it ends at.
func (t *Tree) Resolve(p string) (string, *Node, error) {
	todo, done := strings.Split(strings.Trim(p, "/"), "/"), "."
	for hops := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		n, ok := t.nodes[next]
		if !ok {
			return "", nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
		}
		if n.Mode&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if hops++; hops > 40 {
			return "", nil, fmt.Errorf("%s: too many symbolic links", p)
		}
		if path.IsAbs(n.Link) {
			done = "."
		}
		todo = append(strings.Split(n.Link, "/"), todo...)
	}
	return done, t.nodes[done], nil
}

// ReadFile returns the content of the regular file that p resolves to.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	_, n, err := t.Resolve(p)
	if err != nil {
		return nil, err
	}
	if !n.Mode.IsRegular() || n.Content == nil {
		return nil, fmt.Errorf("%s: not a regular file", p)
	}
	r, err := n.Content.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // read only
	return io.ReadAll(r)
}

// Remove deletes p and all below it; the root stays.
func (t *Tree) Remove(p string) {
	p, err := Clean(p)
	if err != nil || p == "." {
		return
	}
	delete(t.nodes, p)
	for q := range t.nodes {
		if strings.HasPrefix(q, p+"/") {
			delete(t.nodes, q)
		}
	}
}

// RemoveAll deletes the entries at these paths, and nothing else; the root stays. The
// caller sees to it that nothing lies below them.
func (t *Tree) RemoveAll(paths map[string]bool) {
	maps.DeleteFunc(t.nodes, func(p string, _ *Node) bool { return p != "." && paths[p] })
}

// Paths lists every path, sorted, the root first.
func (t *Tree) Paths() []string {
	return slices.SortedFunc(maps.Keys(t.nodes), func(a, b string) int {
		switch {
		case a == ".":
			return -1
		case b == ".":
			return 1
		}
		return strings.Compare(a, b)
	})
}

// Walk calls fn for every entry in the order of Paths.
func (t *Tree) Walk(fn func(p string, n *Node) error) error {
	for _, p := range t.Paths() {
		if err := fn(p, t.nodes[p]); err != nil {
			return err
		}
	}
	return nil
}
