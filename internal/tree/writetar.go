package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// WriteTar writes the tree as a tar with fixed times (repro.Epoch). Device nodes, sockets and
// pipes have no place in it and are an error.
func (t *Tree) WriteTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	err := t.Walk(func(p string, n *Node) error {
		if p == "." {
			return nil
		}
		return writeEntry(tw, p, n)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// WriteDelta writes what ApplyTar turns below into the tree with, as a tar like WriteTar's.
// Regular files are the same when their content lies in the same place.
func (t *Tree) WriteDelta(w io.Writer, below *Tree) error {
	tw := tar.NewWriter(w)
	gone := ""
	err := below.Walk(func(p string, _ *Node) error {
		if _, ok := t.nodes[p]; ok || gone != "" && strings.HasPrefix(p, gone) {
			return nil
		}
		gone = p + "/"
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(p), ".wh."+path.Base(p)), ModTime: repro.Epoch(), Format: tar.FormatPAX})
	})
	if err != nil {
		return err
	}
	err = t.Walk(func(p string, n *Node) error {
		if old, ok := below.nodes[p]; ok && same(n, old) {
			return nil
		}
		return writeEntry(tw, p, n)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// same says whether two entries are the same without a look at what files hold.
func same(a, b *Node) bool {
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Link != b.Link || a.Rdev != b.Rdev || !maps.Equal(a.Xattrs, b.Xattrs) {
		return false
	}
	x, _ := a.Content.(Section)
	y, _ := b.Content.(Section)
	return !a.Mode.IsRegular() || x == y && x != Section{}
}

func writeEntry(tw *tar.Writer, p string, n *Node) error {
	h := &tar.Header{Name: p, Mode: int64(UnixMode(n.Mode)), Uid: n.UID, Gid: n.GID, ModTime: repro.Epoch(), Format: tar.FormatPAX}
	for key, value := range n.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+key] = value
	}
	switch {
	case n.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, p+"/"
	case n.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.Link
	case n.Mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, n.Content.Size()
	default:
		return fmt.Errorf("%s: a %v has no place in an archive", p, n.Mode.Type())
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	r, err := n.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	_, err = io.Copy(tw, r)
	return err
}

// UnixMode is a mode's permission, set-id and sticky bits as chmod(2) takes them.
func UnixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, unix := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}
