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

// Write writes the super block and, from BlockSize on, the hash tree of the first
// size bytes of data to out, as veritysetup expects of a hash device of its own.
// The data must be a whole number of blocks, at least one. It is read by all
// processors at once; memory holds the tree, under 1% of the data.
func Write(ctx context.Context, out io.WriterAt, data io.ReaderAt, size int64, salt []byte, id uuid.UUID) (Result, error) {
	r, err := write(ctx, out, data, size, salt, id)
	if err != nil {
		return Result{}, fmt.Errorf("creating the verity tree: %w", err)
	}
	return r, nil
}

func write(ctx context.Context, out io.WriterAt, data io.ReaderAt, size int64, salt []byte, id uuid.UUID) (Result, error) {
	if len(salt) > MaxSalt {
		return Result{}, fmt.Errorf("salt of %d bytes, at most %d", len(salt), MaxSalt)
	}
	if size <= 0 || size%BlockSize != 0 {
		return Result{}, fmt.Errorf("data has %d bytes, not a whole number of %d-byte blocks", size, BlockSize)
	}
	digests, err := hashAll(ctx, data, size, salt)
	if err != nil {
		return Result{}, err
	}
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

// hashAll is the digests of all blocks of data, one after the other.
func hashAll(ctx context.Context, data io.ReaderAt, size int64, salt []byte) ([]byte, error) {
	out := make([]byte, size/BlockSize*sha256.Size)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for at := int64(0); at < size; at += stretch {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := make([]byte, min(stretch, size-at))
			if n, err := data.ReadAt(part, at); n < len(part) {
				return errors.Join(fmt.Errorf("reading the data at byte %d", at), err)
			}
			first := at / BlockSize * sha256.Size
			hash(out[first:first], part, salt)
			return nil
		})
	}
	return out, group.Wait()
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
