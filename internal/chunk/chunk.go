// Package chunk cuts files where their content says so, which is at the same places wherever
// that content lies: two versions of a file share the chunks of what did not change. Each
// chunk is packed by itself as one zstd frame (RFC 8878). What is zero is in no chunk.
package chunk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/bits"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"github.com/restic/chunker"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

// Sizes of chunks, in bytes. Another average, or another polynomial, cuts elsewhere: nothing
// would be shared with what was cut before.
const (
	Min     = Average / 4
	Average = 1 << 20
	Max     = Average * 8 // rarely met: what is cut there is cut elsewhere once it moved

	polynomial chunker.Pol = 0x3DA3358B4DC173 // irreducible, of degree 53
)

// hole is how much must be zero to be left out, and how it is aligned, in bytes.
const hole = 64 << 10

// Cut calls put with the chunks of f's first size bytes, in their order; plain is put's for
// as long as it runs. Between two chunks there are zeros. The file's offset moves.
func Cut(ctx context.Context, f *os.File, size int64, put func(at int64, plain []byte) error) error {
	var runs []sparse.Part // stretches without a hole, from their first byte that is not zero to their last
	behind := int64(-1)
	err := sparse.Blocks(ctx, f, size, hole, nil, func(b *sparse.Block) error {
		if b.At != behind {
			runs = append(runs, sparse.Part{At: b.At + hole - int64(len(bytes.TrimLeft(b.Plain, "\x00")))})
		}
		last := &runs[len(runs)-1]
		last.Size = b.At + int64(len(bytes.TrimRight(b.Plain, "\x00"))) - last.At
		behind = b.At + hole
		return nil
	})
	if err != nil {
		return fmt.Errorf("cutting %s: %w", f.Name(), err)
	}
	buffer := make([]byte, Max)
	for _, r := range runs {
		c := chunker.NewWithBoundaries(io.NewSectionReader(f, r.At, r.Size), polynomial, Min, Max)
		c.SetAverageBits(bits.Len(Average) - 1)
		for at := r.At; at < r.At+r.Size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			one, err := c.Next(buffer)
			if err != nil {
				return fmt.Errorf("cutting %s at %d: %w", f.Name(), at, err)
			}
			if err := put(at, one.Data); err != nil {
				return err
			}
			at += int64(one.Length) // #nosec G115 -- at most Max
		}
	}
	return nil
}

// Packer packs chunks. It is safe for concurrent use.
type Packer struct{ z *zstd.Encoder }

// NewPacker makes a Packer for as many chunks at once as there are processors.
func NewPacker() (*Packer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(Max))
	return &Packer{z}, err
}

// Pack returns a chunk as a frame that says how large its content is: the same bytes for the same chunk.
func (p *Packer) Pack(plain []byte) []byte { return p.z.EncodeAll(plain, nil) }

// Unpacker unpacks chunks. It is safe for concurrent use.
type Unpacker struct{ z *zstd.Decoder }

// NewUnpacker makes an Unpacker for as many chunks at once as there are processors.
func NewUnpacker() (*Unpacker, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(Max), zstd.WithDecoderMaxWindow(Max))
	return &Unpacker{z}, err
}

// Unpack returns the chunk of size bytes that packed holds. It takes no more memory than
// that, whatever packed claims to hold.
func (u *Unpacker) Unpack(packed []byte, size int) ([]byte, error) {
	if size <= 0 || size > Max {
		return nil, fmt.Errorf("a chunk of %d bytes, at most %d", size, Max)
	}
	plain, err := u.z.DecodeAll(packed, make([]byte, 0, size))
	if err == nil && len(plain) != size {
		err = fmt.Errorf("unpacked, it has %d bytes, want %d", len(plain), size)
	}
	return plain, err
}
