package source

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// treeLayer is an image layer made of a tree, compressed by zstd: what a node
// reads at first boot is hashed block by block, by dm-verity and by containerd, so
// fewer bytes on board make the import quicker, and the image smaller.
type treeLayer struct {
	t    *tree.Tree
	sums func() (layerSums, error)
}

// layerSums is what a layer's descriptor and its image's config say of it.
type layerSums struct {
	digest, diffID v1.Hash
	size           int64 // compressed
}

var _ v1.Layer = (*treeLayer)(nil)

func newTreeLayer(t *tree.Tree) *treeLayer {
	l := &treeLayer{t: t}
	l.sums = sync.OnceValues(func() (layerSums, error) {
		plain, packed := sha256.New(), sha256.New()
		count := &countWriter{w: packed}
		if err := l.write(count, plain); err != nil {
			return layerSums{}, err
		}
		return layerSums{hashOf(packed), hashOf(plain), count.n}, nil
	})
	return l
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

// write puts the compressed layer on packed and the plain one on plain. One
// encoder thread and a fixed level: the same tree gives the same bytes.
func (l *treeLayer) write(packed, plain io.Writer) error {
	z, err := zstd.NewWriter(packed, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	return errors.Join(writeTree(io.MultiWriter(z, plain), l.t), z.Close())
}

func (l *treeLayer) Digest() (v1.Hash, error)            { s, err := l.sums(); return s.digest, err }
func (l *treeLayer) DiffID() (v1.Hash, error)            { s, err := l.sums(); return s.diffID, err }
func (l *treeLayer) Size() (int64, error)                { s, err := l.sums(); return s.size, err }
func (l *treeLayer) MediaType() (types.MediaType, error) { return types.OCILayerZStd, nil }

// Compressed implements v1.Layer.
func (l *treeLayer) Compressed() (io.ReadCloser, error) {
	return piped(func(w io.Writer) error { return l.write(w, io.Discard) }), nil
}

// Uncompressed implements v1.Layer.
func (l *treeLayer) Uncompressed() (io.ReadCloser, error) {
	return piped(func(w io.Writer) error { return writeTree(w, l.t) }), nil
}

func piped(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }() //nolint:errcheck // always nil
	return r
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
