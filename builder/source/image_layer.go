package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

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
	return errors.Join(l.t.WriteTar(io.MultiWriter(z, plain)), z.Close())
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
	return piped(func(w io.Writer) error { return l.t.WriteTar(w) }), nil
}

func piped(write func(io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }() //nolint:errcheck // always nil
	return r
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
