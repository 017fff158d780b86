// Package esp writes an EFI system partition: a FAT32 file system as in the UEFI
// specification, section 13.3, and Microsoft's FAT specification 1.03, with
// sectors of 512 bytes, the same bytes for the same files on every run. It
// knows nothing of boot loaders: what lies in the partition is the caller's.
package esp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/imgbuild/imgbuild/internal/tree"
)

const (
	sector = 512
	// MinSize is the smallest partition, in bytes: with fewer clusters firmware
	// would take the file system for FAT16.
	MinSize = 34 << 20
	// MaxSize bounds the allocation table, which is held in memory.
	MaxSize = 8 << 30
	// maxFile is FAT32's own limit.
	maxFile = 1<<32 - 1
	// chunk is how much content is held at a time; the table is rewritten after each.
	chunk = 16 << 20
)

// Options are what the files themselves do not say.
type Options struct {
	Label    string // at most 11 characters of A-Z, 0-9, space, "-" and "_"
	VolumeID uint32
	Epoch    int64    // time of every entry, seconds since 1970; before 1980 counts as 1980
	Folders  []string // that are there although nothing may be in them
}

// Write makes a FAT32 file system of size bytes at offset of the disk image f
// and puts files in it, by slash-separated path; folders are made as needed.
// That part of f must be zero (as after Truncate); what is not written stays
// sparse. A file system that the files do not fit in is an error.
func Write(ctx context.Context, f *os.File, offset, size int64, files map[string]tree.Content, opt Options) error {
	plan, err := newPlan(files, opt.Folders)
	if err != nil {
		return fmt.Errorf("writing the EFI system partition: %w", err)
	}
	if err := checkArgs(f, offset, size, opt); err != nil {
		return fmt.Errorf("writing the EFI system partition: %w", err)
	}
	gather := &gathered{File: f}
	fsys, err := fat32.Create(file.New(gather, false), size, offset, sector, opt.Label, true)
	if err != nil {
		return fmt.Errorf("writing the EFI system partition: %w", err)
	}
	if need, room := plan.bytes(int64(fsys.BytesPerCluster())), size-int64(fsys.DataStart()); need > room {
		return fmt.Errorf("writing the EFI system partition: files need %d bytes, a partition of %d bytes has room for %d: make it larger", need, size, room)
	}
	for _, dir := range plan.dirs[1:] {
		if err := fsys.Mkdir(dir); err != nil {
			return fmt.Errorf("writing the EFI system partition: folder %s: %w", dir, err)
		}
	}
	for _, name := range plan.files {
		if err := put(ctx, fsys, name, files[name]); err != nil {
			return fmt.Errorf("writing the EFI system partition: %s: %w", name, err)
		}
	}
	err = gather.flush()
	if err == nil {
		err = settle(fsys, f, offset, plan.dirs, opt)
	}
	if err != nil {
		return fmt.Errorf("writing the EFI system partition: %w", err)
	}
	return nil
}

// gathered makes one write of those that lie one behind the other: the library has one for
// each cluster, which may be a sector.
type gathered struct {
	*os.File
	at   int64
	data []byte // to be written there
}

// WriteAt implements io.WriterAt. What fails is heard of later.
func (g *gathered) WriteAt(b []byte, off int64) (int, error) {
	if off != g.at+int64(len(g.data)) || len(g.data) >= 1<<20 {
		if err := g.flush(); err != nil {
			return 0, err
		}
		g.at = off
	}
	g.data = append(g.data, b...)
	return len(b), nil
}

// ReadAt implements io.ReaderAt.
func (g *gathered) ReadAt(b []byte, off int64) (int, error) {
	if err := g.flush(); err != nil {
		return 0, err
	}
	return g.File.ReadAt(b, off)
}

func (g *gathered) flush() error {
	_, err := g.File.WriteAt(g.data, g.at)
	g.data = g.data[:0]
	return err
}

func checkArgs(f *os.File, offset, size int64, opt Options) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if offset < 0 || offset%sector != 0 || size%sector != 0 || size < MinSize || size > MaxSize {
		return fmt.Errorf("offset %d and size %d must be whole sectors, the size from %d to %d", offset, size, MinSize, int64(MaxSize))
	}
	if info.Size() < offset+size {
		return fmt.Errorf("partition ends at %d, image has %d bytes", offset+size, info.Size())
	}
	if opt.Label == "" || len(opt.Label) > 11 || strings.Trim(opt.Label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -_") != "" {
		return fmt.Errorf("label %q: must be 1 to 11 characters of A-Z, 0-9, space, - and _", opt.Label)
	}
	return nil
}

func put(ctx context.Context, fsys *fat32.FileSystem, name string, c tree.Content) error {
	dst, err := fsys.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	defer dst.Close() //nolint:errcheck // holds nothing open
	src, err := c.Open()
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	buf := make([]byte, min(chunk, c.Size()+1))
	for total := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(src, buf)
		if total += int64(n); total > c.Size() {
			return fmt.Errorf("content is longer than the %d bytes it promised", c.Size())
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			return err
		case total != c.Size():
			return fmt.Errorf("content has %d bytes, it promised %d", total, c.Size())
		default:
			return nil
		}
	}
}
