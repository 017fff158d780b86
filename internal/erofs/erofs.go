// Package erofs writes a tree as a read-only EROFS file system image, the same
// bytes for the same tree on every run. It follows the Linux kernel's
// Documentation/filesystems/erofs.rst (on-disk format, uncompressed). It is a
// writer only: it neither compresses nor shares the data of hard links.
package erofs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/erofs/go-erofs"
	"github.com/google/uuid"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// BlockSize is the file system's block size; an image is a whole number of blocks.
const BlockSize = 4096

// Options are what the tree itself does not say.
type Options struct {
	UUID  uuid.UUID // of the file system
	Label string    // volume name, at most 15 bytes; may be empty
	Epoch int64     // modification time of every entry, seconds since 1970
	At    int64     // where in the file the image begins, in bytes

	// Later hears where in the image the data of each file of a block or more begin,
	// at a block, the last one filled up with zeros. Where it says so, the data are not
	// written: a hole is left for them. May be nil.
	Later func(at int64, c tree.Content) bool
}

// Super block fields, as offsets into the image.
const (
	superOffset   = 1024
	checksumField = superOffset + 4
	compatField   = superOffset + 8
	uuidField     = superOffset + 48
	labelField    = superOffset + 64

	compatChecksum = 1 << 0
	compatMtime    = 1 << 1
)

// Write replaces what is in out, from opt.At on, with an image of t and returns
// the image's size in bytes, a multiple of BlockSize. Content is streamed: memory grows with the
// number of entries, not with their size. Content that is shorter or longer
// than it promised is an error. The caller closes out.
func Write(ctx context.Context, out *os.File, t *tree.Tree, opt Options) (int64, error) {
	if opt.Epoch < 0 {
		return 0, fmt.Errorf("writing EROFS: epoch %d is before 1970", opt.Epoch)
	}
	if len(opt.Label) > 15 {
		return 0, fmt.Errorf("writing EROFS: label %q is longer than 15 bytes", opt.Label)
	}
	src, err := newSource(ctx, t, opt.Epoch)
	if err != nil {
		return 0, fmt.Errorf("writing EROFS: %w", err)
	}
	if err := out.Truncate(opt.At); err != nil {
		return 0, fmt.Errorf("writing EROFS: %w", err)
	}
	size, err := pack(ctx, out, src, opt)
	if err != nil {
		return 0, fmt.Errorf("writing EROFS: %w", err)
	}
	if err := stamp(out, opt); err != nil {
		return 0, fmt.Errorf("writing the EROFS super block: %w", err)
	}
	return size, nil
}

func pack(ctx context.Context, out *os.File, src *source, opt Options) (int64, error) {
	to := newStretches(ctx, out, opt.At)
	src.begins = func(c tree.Content) bool { // the library writes each file as it reads it
		if opt.Later == nil || c.Size() < BlockSize || !opt.Later(to.pos+int64(len(to.buf)), c) {
			return false
		}
		to.leave(c.Size())
		return true
	}
	// The build time equals every entry's time, which lets the writer choose compact inodes.
	w := erofs.Create(to, erofs.WithBlockSize(BlockSize), erofs.WithBuildTime(uint64(opt.Epoch), 0)) // #nosec G115 -- checked not negative
	err := w.CopyFrom(src)
	if err == nil {
		err = w.Close()
	}
	if err = errors.Join(err, to.settle()); err != nil { // before the file is closed, whatever happened
		return 0, err
	}
	size := (to.end + BlockSize - 1) / BlockSize * BlockSize
	return size, out.Truncate(opt.At + size)
}

// stamp fills in what the library leaves zero: UUID, label and the checksum of
// the block that holds the super block.
func stamp(f *os.File, opt Options) error {
	block := make([]byte, BlockSize)
	if _, err := f.ReadAt(block, opt.At); err != nil {
		return err
	}
	compat := binary.LittleEndian.Uint32(block[compatField:]) | compatChecksum | compatMtime
	binary.LittleEndian.PutUint32(block[compatField:], compat)
	copy(block[uuidField:uuidField+16], opt.UUID[:])
	copy(block[labelField:labelField+16], opt.Label)
	binary.LittleEndian.PutUint32(block[checksumField:], 0)
	// CRC-32C with the kernel's seed and without the final inversion.
	sum := ^crc32.Checksum(block[superOffset:], crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(block[checksumField:], sum)
	_, err := f.WriteAt(block, opt.At)
	return err
}
