package source

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// treeLayer is an uncompressed image layer made of a tree: on board there is
// nothing to gain from compression, and import is faster without.
type treeLayer struct {
	t    *tree.Tree
	sum  func() (v1.Hash, error)
	size int64
}

var _ v1.Layer = (*treeLayer)(nil)

func newTreeLayer(t *tree.Tree) *treeLayer {
	l := &treeLayer{t: t}
	l.sum = sync.OnceValues(func() (v1.Hash, error) {
		h := sha256.New()
		count := &countWriter{w: h}
		if err := writeTree(count, t); err != nil {
			return v1.Hash{}, err
		}
		l.size = count.n
		return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}, nil
	})
	return l
}

func (l *treeLayer) Digest() (v1.Hash, error)            { return l.sum() }
func (l *treeLayer) DiffID() (v1.Hash, error)            { return l.sum() }
func (l *treeLayer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }
func (l *treeLayer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *treeLayer) Size() (int64, error)                { _, err := l.sum(); return l.size, err }
func (l *treeLayer) Uncompressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTree(w, l.t)) }()
	return r, nil
}

// writeTree writes a tree as a tar with fixed times. Device nodes, sockets and
// pipes have no place in a layer and are an error.
func writeTree(w io.Writer, t *tree.Tree) error {
	tw := tar.NewWriter(w)
	err := t.Walk(func(p string, n *tree.Node) error {
		if p == "." {
			return nil
		}
		h := &tar.Header{Name: p, Mode: unixMode(n.Mode), Uid: n.UID, Gid: n.GID, ModTime: repro.Epoch(), Format: tar.FormatPAX}
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
			return fmt.Errorf("%s: a %v has no place in an image layer", p, n.Mode.Type())
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

func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
