package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const block = 4096

// superblock is what the first block of the verity partition tells (veritysetup(8)).
type superblock struct {
	blocks int64
	salt   []byte
}

func readSuperblock(tree io.ReaderAt, rootSize int64) (*superblock, error) {
	b := make([]byte, block)
	if err := readAt(tree, b, 0); err != nil {
		return nil, fmt.Errorf("reading the verity superblock: %w", err)
	}
	le := binary.LittleEndian
	blocks, saltLen := le.Uint64(b[72:]), int(le.Uint16(b[80:]))
	if string(b[:8]) != "verity\x00\x00" || le.Uint32(b[8:]) != 1 || le.Uint32(b[12:]) != 1 ||
		strings.TrimRight(string(b[32:64]), "\x00") != "sha256" || le.Uint32(b[64:]) != block || le.Uint32(b[68:]) != block ||
		blocks == 0 || blocks > uint64(rootSize/block) || saltLen > 256 || !zero(b[82:88]) || !zero(b[88+saltLen:]) { //nolint:gosec // a size is not negative
		return nil, nil
	}
	return &superblock{int64(blocks), b[88 : 88+saltLen]}, nil // #nosec G115 -- checked
}

// checkVerity computes the hash tree (Linux dm-verity, hash type 1, SHA-256) over
// every block of the root file system and holds it, level by level, against the
// tree on the disk and the root hash on the command line. It says whether the
// root file system is what the hash vouches for.
func (r *Report) checkVerity(ctx context.Context, root, tree *io.SectionReader) (bool, error) {
	super, err := readSuperblock(tree, root.Size())
	if err != nil {
		return false, err
	}
	if super == nil {
		r.say("verity", "", "the superblock does not fit the root file system")
		return false, nil
	}
	lowest, others := levels(super.blocks)
	level, same, err := hashData(ctx, root, super, tree, block+others)
	if err != nil {
		return false, fmt.Errorf("reading the root file system: %w", err)
	}
	var above [][]byte // from the second level up
	for len(level) > sha256.Size {
		level = append(level, make([]byte, (block-len(level)%block)%block)...)
		above = append(above, level)
		level = hashBlocks(nil, level, super.salt)
	}
	if got := hex.EncodeToString(level); got != strings.ToLower(r.RootHash) {
		r.say("verity", "", "the root file system hashes to %s, the command line says %s", got, r.RootHash)
		return false, nil
	}
	at := int64(block)
	for i := len(above) - 1; i >= 0; i-- {
		if !holds(tree, at, above[i]) {
			r.say("verity", "", "the hash tree on the disk differs from the root file system at level %d", i+1)
		}
		at += int64(len(above[i]))
	}
	if !same {
		r.say("verity", "", "the hash tree on the disk differs from the root file system at level 0")
	}
	at += lowest
	return true, errors.Join(r.checkRest(root, super.blocks*block, "root file system"), r.checkRest(tree, at, "hash tree"))
}

// levels are how many bytes the lowest level of a hash tree has, and all others, which lie
// before it; over one block there is none.
func levels(blocks int64) (lowest, others int64) {
	if blocks > 1 {
		blocks = (blocks*sha256.Size + block - 1) / block
		lowest = blocks * block
	}
	for blocks > 1 {
		blocks = (blocks*sha256.Size + block - 1) / block
		others += blocks * block
	}
	return lowest, others
}

// holds says whether want, a whole number of blocks, lies there.
func holds(src io.ReaderAt, at int64, want []byte) bool {
	buf := make([]byte, min(64*block, len(want)))
	for len(want) > 0 {
		have := buf[:min(len(buf), len(want))]
		if err := readAt(src, have, at); err != nil || !bytes.Equal(have, want[:len(have)]) {
			return false
		}
		at, want = at+int64(len(have)), want[len(have):]
	}
	return true
}

// checkRest says so when something lies in a partition behind what was checked.
func (r *Report) checkRest(part *io.SectionReader, at int64, what string) error {
	rest, buf := io.NewSectionReader(part, at, part.Size()-at), make([]byte, 256*block)
	for {
		n, err := rest.Read(buf)
		if !zero(buf[:n]) {
			r.say("verity", "", "something lies in the partition behind the %s", what)
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading behind the %s: %w", what, err)
		}
	}
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// hashData hashes every block of the root file system, by all processors, and says whether
// these digests are what the lowest level on the disk has. It returns those of that level's
// blocks, so that no level of a large root is in memory; of one block, that block's digest.
func hashData(ctx context.Context, root io.ReaderAt, super *superblock, tree io.ReaderAt, lowest int64) (above []byte, same bool, err error) {
	const stretch = 256 * block // two blocks of the lowest level
	size := super.blocks * block
	if super.blocks == 1 {
		b := make([]byte, block)
		err = readAt(root, b, 0)
		return hashBlocks(nil, b, super.salt), true, err
	}
	above = make([]byte, (super.blocks*sha256.Size+block-1)/block*sha256.Size)
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var differs atomic.Bool
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf, level := make([]byte, stretch), make([]byte, 0, stretch/block*sha256.Size)
			for at := next.Add(stretch) - stretch; at < size; at = next.Add(stretch) - stretch {
				runtime.Gosched() // who can work on one processor alone goes first, such as the digest of the whole file
				b := buf[:min(stretch, size-at)]
				if err := errors.Join(ctx.Err(), readAt(root, b, at)); err != nil {
					return err
				}
				level = hashBlocks(level[:0], b, super.salt)
				level = append(level, make([]byte, (block-len(level)%block)%block)...)
				to := at / block * sha256.Size
				if !holds(tree, lowest+to, level) {
					differs.Store(true)
				}
				hashBlocks(above[to/block*sha256.Size:][:0], level, super.salt)
			}
			return nil
		})
	}
	err = group.Wait()
	return above, !differs.Load(), err
}

// hashBlocks appends the digest of each block of data to dst.
func hashBlocks(dst, data, salt []byte) []byte {
	h := sha256.New()
	for ; len(data) > 0; data = data[block:] {
		h.Reset()
		h.Write(salt)
		h.Write(data[:block])
		dst = h.Sum(dst)
	}
	return dst
}
