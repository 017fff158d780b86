// Package verity makes the dm-verity hash tree of a file system image, the same
// bytes for the same data, salt and UUID. It follows the Linux kernel's
// Documentation/admin-guide/device-mapper/verity.rst (hash type 1, SHA-256,
// blocks of 4096 bytes) and the super block of cryptsetup's veritysetup. It
// opens no device: that is the initrd's work.
package verity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

// Tree is a hash tree in the making. Memory holds a digest for each 512 KiB of the data.
type Tree struct {
	ctx   context.Context //nolint:containedctx // of the whole making
	data  io.ReaderAt
	salt  []byte
	known []known
}

// known are the digests of the blocks of the data from at to end.
type known struct {
	at, end int64
	digests io.ReaderAt
}

// New begins a tree over data.
func New(ctx context.Context, data io.ReaderAt, salt []byte) *Tree {
	return &Tree{ctx: ctx, data: data, salt: salt}
}

// Know says what the Digests of the data from byte at on are, where that is known.
// Write reads what nobody knows.
func (t *Tree) Know(at int64, digests *io.SectionReader) {
	t.known = append(t.known, known{at, at + digests.Size()/sha256.Size*BlockSize, digests})
}

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
	lowest, above := levels(size / BlockSize)
	digests, err := t.lowest(out, BlockSize+above, size)
	if err != nil {
		return Result{}, err
	}
	if _, err := out.WriteAt(superBlock(size/BlockSize, salt, id), 0); err != nil {
		return Result{}, err
	}
	for at := BlockSize + above; len(digests) > sha256.Size; digests = hash(nil, digests, salt) { // from the second level up
		digests = append(digests, make([]byte, -len(digests)&(BlockSize-1))...)
		at -= int64(len(digests))
		if _, err := out.WriteAt(digests, at); err != nil {
			return Result{}, err
		}
	}
	return Result{RootHash: digests, HashSize: BlockSize + above + lowest}, nil
}

// levels are how many bytes the lowest level of a tree has, and all above it, which lie
// before it. One block has none.
func levels(blocks int64) (lowest, above int64) {
	if blocks > 1 {
		blocks = Blocks(blocks * sha256.Size)
		lowest = blocks * BlockSize
	}
	for blocks > 1 {
		blocks = Blocks(blocks * sha256.Size)
		above += blocks * BlockSize
	}
	return lowest, above
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

// lowest writes the lowest level to out at byte at, by as many processors as there are,
// and returns the digests of its blocks; of data of one block it is that block's.
func (t *Tree) lowest(out io.WriterAt, at, size int64) ([]byte, error) {
	slices.SortFunc(t.known, func(a, b known) int { return cmp.Compare(a.at, b.at) })
	if size == BlockSize {
		digest := make([]byte, sha256.Size)
		return digest, t.fill(digest, 0, size)
	}
	group, ctx := errgroup.WithContext(t.ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	above := make([]byte, Blocks(size/BlockSize*sha256.Size)*sha256.Size)
	for from := int64(0); from < size; from += stretch {
		group.Go(func() error {
			length := min(stretch, size-from)
			level := make([]byte, Blocks(length/BlockSize*sha256.Size)*BlockSize) // filled up
			if err := errors.Join(ctx.Err(), t.fill(level, from, length)); err != nil {
				return err
			}
			to := from / BlockSize * sha256.Size
			hash(above[to/BlockSize*sha256.Size:][:0], level, t.salt)
			_, err := out.WriteAt(level, at+to)
			return err
		})
	}
	return above, group.Wait()
}

// fill puts the digests of length bytes of the data into level: what is known, and what is
// read here.
func (t *Tree) fill(level []byte, from, length int64) error {
	i, _ := slices.BinarySearchFunc(t.known, from, func(k known, from int64) int { return cmp.Compare(k.end, from+1) })
	for at := from; at < from+length; {
		end, to := from+length, level[(at-from)/BlockSize*sha256.Size:]
		if i < len(t.known) && t.known[i].at <= at {
			k := t.known[i]
			end = min(end, k.end)
			want := to[:(end-at)/BlockSize*sha256.Size]
			if n, err := k.digests.ReadAt(want, (at-k.at)/BlockSize*sha256.Size); n < len(want) {
				return fmt.Errorf("reading the digests of the data at byte %d: %w", at, err)
			}
			i++
		} else {
			if i < len(t.known) {
				end = min(end, t.known[i].at)
			}
			buf := make([]byte, end-at)
			if n, err := t.data.ReadAt(buf, at); n < len(buf) {
				return errors.Join(fmt.Errorf("reading the data at byte %d", at), err)
			}
			hash(to[:0], buf, t.salt)
		}
		at = end
	}
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
