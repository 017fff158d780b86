// Package verity makes the dm-verity hash tree of a file system image, the same
// bytes for the same data, salt and UUID. It follows the Linux kernel's
// Documentation/admin-guide/device-mapper/verity.rst (hash type 1, SHA-256,
// blocks of 4096 bytes) and the super block of cryptsetup's veritysetup. It
// opens no device: that is the initrd's work.
package verity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/containerd/go-dmverity/pkg/verity"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

const (
	// BlockSize is the size of data and of hash blocks.
	BlockSize = 4096
	// MaxSalt is the longest salt that the super block can hold.
	MaxSalt = verity.MaxSaltSize

	// stretch is what one processor hashes at a time, in bytes: whole hash blocks' worth.
	stretch = 128 * BlockSize * 8
)

// Result is what has to be known to open the data again.
type Result struct {
	RootHash []byte // 32 bytes
	HashSize int64  // of what was written, a multiple of BlockSize
}

// Tree is a hash tree in the making, by as many processors as there are. Memory
// holds the digests, under 1% of the data.
type Tree struct {
	data  io.ReaderAt
	salt  []byte
	group *errgroup.Group
	ctx   context.Context // of the work in the background
	parts [][]byte        // digests of each stretch of data
	bufs  sync.Pool       // of stretches
}

// New begins a tree over data, which may still grow.
func New(ctx context.Context, data io.ReaderAt, salt []byte) *Tree {
	t := &Tree{data: data, salt: salt, parts: make([][]byte, 1), bufs: sync.Pool{New: func() any { return make([]byte, stretch) }}}
	t.group, t.ctx = errgroup.WithContext(ctx)
	t.group.SetLimit(runtime.GOMAXPROCS(0))
	return t
}

// Ready says that the first size bytes are there, so that they can be hashed
// while more come. The first stretch is left to Write: a super block is often
// filled in at the end.
func (t *Tree) Ready(size int64) {
	for int64(len(t.parts)+1)*stretch <= size {
		t.parts = append(t.parts, nil)
		t.hash(len(t.parts)-1, stretch)
	}
}

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
	t.Ready(size)
	t.hash(0, min(stretch, size))
	if at := int64(len(t.parts)) * stretch; at < size {
		t.parts = append(t.parts, nil)
		t.hash(len(t.parts)-1, size-at)
	}
	if err := t.group.Wait(); err != nil {
		return Result{}, err
	}
	digests := slices.Concat(t.parts...)
	var levels [][]byte // from the data up; the last one is the root's
	for len(digests) > sha256.Size {
		digests = append(digests, make([]byte, -len(digests)&(BlockSize-1))...)
		levels = append(levels, digests)
		digests = hash(nil, digests, salt)
	}
	block, err := superBlock(size/BlockSize, salt, id)
	if err != nil {
		return Result{}, err
	}
	if _, err := out.WriteAt(block, 0); err != nil {
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

func superBlock(blocks int64, salt []byte, id uuid.UUID) ([]byte, error) {
	s := verity.DefaultSuperblock()
	s.DataBlocks, s.SaltSize, s.UUID = uint64(blocks), uint16(len(salt)), id // #nosec G115 -- checked
	copy(s.Salt[:], salt)
	text, err := s.Serialize()
	if err != nil {
		return nil, err
	}
	return append(text, make([]byte, BlockSize-len(text))...), nil
}

// hash has the digests of one stretch, of length bytes, made in the background.
func (t *Tree) hash(i int, length int64) {
	out := make([]byte, 0, length/BlockSize*sha256.Size)
	t.parts[i] = out[:cap(out)]
	t.group.Go(func() error {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		buf := t.bufs.Get().([]byte)
		defer t.bufs.Put(buf) //nolint:staticcheck // one small allocation per stretch
		at := int64(i) * stretch
		if n, err := t.data.ReadAt(buf[:length], at); int64(n) < length {
			return errors.Join(fmt.Errorf("reading the data at byte %d", at), err)
		}
		hash(out, buf[:length], t.salt)
		return nil
	})
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
