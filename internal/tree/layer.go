package tree

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"
)

// opaque says that a folder hides what lower layers have in it.
const opaque = "trusted.overlay.opaque"

// ApplyLayer is ApplyTar, and returns the layer by itself, too, as a lower layer of
// overlayfs (the kernel's Documentation/filesystems/overlayfs.rst): what it takes away
// is a character device 0/0, and a folder that hides the one below is marked opaque.
func (t *Tree) ApplyLayer(file string) (*Tree, error) {
	l := &layer{tree: t, file: file, fresh: map[string]bool{}, hidden: map[string]bool{}, opaque: map[string]bool{}}
	if err := l.read(); err != nil {
		return nil, err
	}
	own := New()
	for p := range l.fresh {
		if n, ok := t.nodes[p]; ok {
			own.nodes[p] = n.copy()
		}
	}
	for p := range l.hidden {
		n, ok := own.nodes[p]
		switch {
		case !ok:
			own.nodes[p] = &Node{Mode: fs.ModeDevice | fs.ModeCharDevice}
		case n.Mode.IsDir():
			l.opaque[p] = true
		}
	}
	for p := range l.opaque {
		if n, ok := own.nodes[p]; ok && n.Mode.IsDir() {
			n.Xattrs[opaque] = "y"
		}
	}
	for p := range maps.Clone(own.nodes) { // what is hidden lies in folders of lower layers
		for dir := path.Dir(p); own.nodes[dir] == nil; dir = path.Dir(dir) {
			n, ok := t.nodes[dir]
			if !ok {
				n = &Node{Mode: fs.ModeDir | 0o755}
			}
			own.nodes[dir] = n.copy()
		}
	}
	return own, nil
}

// copy is the node with attributes of its own.
func (n *Node) copy() *Node {
	same := *n
	same.Xattrs = map[string]string{}
	maps.Copy(same.Xattrs, n.Xattrs)
	return &same
}

// Graft puts all of another tree below dir.
func (t *Tree) Graft(dir string, other *Tree) error {
	return other.Walk(func(p string, n *Node) error { return t.Put(path.Join(dir, p), *n) })
}

// forged says whether an archive brings a word of overlayfs' own.
func forged(xattrs map[string]string) error {
	for name := range xattrs {
		if strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			return fmt.Errorf("the attribute %s is overlayfs' own", name)
		}
	}
	return nil
}
