// Package verity makes the dm-verity hash tree of a file system image, the same
// bytes for the same data, salt and UUID. It follows the Linux kernel's
// Documentation/admin-guide/device-mapper/verity.rst (hash type 1, SHA-256,
// blocks of 4096 bytes) and the super block of cryptsetup's veritysetup. It
// opens no device: that is the initrd's work.
package verity

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

const (
	// BlockSize is the size of data and of hash blocks.
	BlockSize = 4096
	// MaxSalt is the longest salt that the super block can hold.
	MaxSalt = 256

	// stretch is what one processor reads and hashes at a time, in bytes.
	stretch = 1 << 20
)

// Result is what has to be known to open the data again.
type Result struct {
	RootHash []byte // 32 bytes
	HashSize int64  // of what was written, a multiple of BlockSize
}

// Tree is a hash tree in the making. Memory holds the digests, under 1% of the data.
type Tree struct {
	ctx   context.Context //nolint:containedctx // of the whole making
	data  io.ReaderAt
	salt  []byte
	known map[int64][]byte // digests of the blocks from that byte on
}

// New begins a tree over data.
func New(ctx context.Context, data io.ReaderAt, salt []byte) *Tree {
	return &Tree{ctx: ctx, data: data, salt: salt, known: map[int64][]byte{}}
}

// Know says what the Digests of the data from byte at on are, where that is known.
// Write reads what nobody knows.
func (t *Tree) Know(at int64, digests []byte) { t.known[at] = digests }

// Digests are those of the blocks of the first size bytes of r, 32 bytes each, the
// last block filled up with zeros.
func Digests(r io.Reader, size int64, salt []byte) ([]byte, error) {
	out, buf := make([]byte, 0, Blocks(size)*sha256.Size), make([]byte, min(stretch, Blocks(size)*BlockSize))
	for left := size; left > 0; left -= stretch {
		part := buf[:min(stretch, Blocks(left)*BlockSize)]
		n, err := io.ReadFull(r, part[:min(int64(len(part)), left)])
		if err != nil {
			return nil, fmt.Errorf("hashing blocks: %w", err)
		}
		clear(part[n:])
		out = hash(out, part, salt)
	}
	return out, nil
}

// Blocks is how many blocks hold size bytes.
func Blocks(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// Write writes the super block and, from BlockSize on, the hash tree of the first
// size bytes of data to out, as veritysetup expects of a hash device of its own.
// The data must be a whole number of blocks, at least one. The tree is of no use
// afterwards.
func (t *Tree) Write(out io.WriterAt, size int64, id uuid.UUID) (Result, error) {
	r, err := t.write(out, size, id)
	if err != nil {
		return Result{}, fmt.Errorf("creating the verity tree: %w", err)
	}
	return r, nil
}

func (t *Tree) write(out io.WriterAt, size int64, id uuid.UUID) (Result, error) {
	salt := t.salt
	if len(salt) > MaxSalt {
		return Result{}, fmt.Errorf("salt of %d bytes, at most %d", len(salt), MaxSalt)
	}
	if size <= 0 || size%BlockSize != 0 {
		return Result{}, fmt.Errorf("data has %d bytes, not a whole number of %d-byte blocks", size, BlockSize)
	}
	digests, err := t.digests(size)
	if err != nil {
		return Result{}, err
	}
	var levels [][]byte // from the data up; the last one is the root's
	for len(digests) > sha256.Size {
		digests = append(digests, make([]byte, -len(digests)&(BlockSize-1))...)
		levels = append(levels, digests)
		digests = hash(nil, digests, salt)
	}
	if _, err := out.WriteAt(superBlock(size/BlockSize, salt, id), 0); err != nil {
		return Result{}, err
	}
	at := int64(BlockSize)
	for i := len(levels) - 1; i >= 0; i-- {
		if _, err := out.WriteAt(levels[i], at); err != nil {
			return Result{}, err
		}
		at += int64(len(levels[i]))
	}
	return Result{RootHash: digests, HashSize: at}, nil
}

// superBlock is that of veritysetup(8), and zeros up to the end of its block.
func superBlock(blocks int64, salt []byte, id uuid.UUID) []byte {
	b, le := make([]byte, BlockSize), binary.LittleEndian
	copy(b, "verity\x00\x00")
	le.PutUint32(b[8:], 1)  // version
	le.PutUint32(b[12:], 1) // hash type
	copy(b[16:], id[:])
	copy(b[32:], "sha256")
	le.PutUint32(b[64:], BlockSize)         // of the data
	le.PutUint32(b[68:], BlockSize)         // of the hashes
	le.PutUint64(b[72:], uint64(blocks))    // #nosec G115 -- a size is not negative
	le.PutUint16(b[80:], uint16(len(salt))) // #nosec G115 -- checked
	copy(b[88:], salt)
	return b
}

// digests are those of all blocks in the first size bytes: what is known, and between
// it what is read here, by as many processors as there are.
func (t *Tree) digests(size int64) ([]byte, error) {
	starts := append(slices.Sorted(maps.Keys(t.known)), size)
	group, ctx := errgroup.WithContext(t.ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	n, at := size/BlockSize*sha256.Size, int64(0)
	out := make([]byte, n, (n+BlockSize-1)/BlockSize*BlockSize) // the lowest level of the tree is filled up
	for _, start := range starts {
		for ; at < start; at += stretch {
			at, length := at, min(stretch, start-at)
			group.Go(func() error { return t.read(ctx, out[at/BlockSize*sha256.Size:], at, length) })
		}
		at = start + int64(copy(out[start/BlockSize*sha256.Size:], t.known[start]))/sha256.Size*BlockSize
	}
	return out, group.Wait()
}

// read hashes a stretch of the data into out.
func (t *Tree) read(ctx context.Context, out []byte, at, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	buf := make([]byte, length)
	if n, err := t.data.ReadAt(buf, at); int64(n) < length {
		return errors.Join(fmt.Errorf("reading the data at byte %d", at), err)
	}
	hash(out[:0], buf, t.salt)
	return nil
}

// hash appends the digest of each block of data to dst.
func hash(dst, data, salt []byte) []byte {
	h := sha256.New()
	for ; len(data) > 0; data = data[BlockSize:] {
		h.Reset()
		h.Write(salt)
		h.Write(data[:BlockSize])
		dst = h.Sum(dst)
	}
	return dst
}
