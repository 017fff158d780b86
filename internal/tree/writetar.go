package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"

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
	})
	if err != nil {
		return err
	}
	return tw.Close()
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
