package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// maxUnpacked bounds what a compressed file may become, in bytes.
const maxUnpacked = 64 << 30

// maxWindow is how far back a zstd frame may refer, as zstd(1) has it.
const maxWindow = 128 << 20

// openZstd unpacks a compressed raw disk.
func openZstd(ctx context.Context, f *os.File, size int64) (*opened, error) {
	z, err := zstd.NewReader(io.NewSectionReader(f, 0, size), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return unpack(ctx, f, z, maxUnpacked)
}

// isGzip tells a compressed disk: neither a tar nor the text of a config.
func isGzip(f io.ReaderAt, size int64) bool {
	head := gzipHead(f, size)
	return len(head) > 0 && !isTar(bytes.NewReader(head)) && !isConfig(bytes.NewReader(head))
}

// gzipHead is how the content of a gzip file begins; empty: it is none.
func gzipHead(f io.ReaderAt, size int64) []byte {
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil
	}
	head := make([]byte, 1024)
	n, _ := io.ReadFull(z, head) // what is wrong behind that is found later
	return head[:n]
}

func openGzip(ctx context.Context, f *os.File, size int64) (*opened, error) {
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, err
	}
	return unpack(ctx, f, z, maxUnpacked)
}

// isGCE tells a compressed tar.
func isGCE(f io.ReaderAt, size int64) bool {
	return isTar(bytes.NewReader(gzipHead(f, size)))
}

// openGCE unpacks an image of Compute Engine: one file, disk.raw, of whole GiB.
func openGCE(ctx context.Context, f *os.File, size int64) (*opened, error) {
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, size))
	if err != nil {
		return nil, err
	}
	archive := tar.NewReader(z)
	h, err := archive.Next()
	if err != nil {
		return nil, err
	}
	if h.Name != "disk.raw" || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse || h.Size%(1<<30) != 0 {
		return nil, fmt.Errorf("%s of %d bytes, want disk.raw, of whole GiB", h.Name, h.Size)
	}
	disk, err := unpack(ctx, f, archive, maxUnpacked)
	if err != nil {
		return nil, err
	}
	if h, err = archive.Next(); !errors.Is(err, io.EOF) {
		disk.close()
		return nil, fmt.Errorf("something lies behind disk.raw: %v, %w", h, err)
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(z, maxText)); err != nil { // to the checksum
		disk.close()
		return nil, err
	}
	return disk, nil
}

// unpack reads r to its end into a scratch file with holes, beside f or, where that cannot
// be written, in the temporary folder; most is how many bytes it may have.
func unpack(ctx context.Context, f *os.File, r io.Reader, most int64) (*opened, error) {
	scratch, err := os.CreateTemp(filepath.Dir(f.Name()), ".imgbuild-verify-")
	if err != nil {
		scratch, err = os.CreateTemp("", "imgbuild-verify-")
	}
	if err != nil {
		return nil, err
	}
	size, err := fill(ctx, scratch, r, most)
	if err := errors.Join(os.Remove(scratch.Name()), err); err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	return &opened{ReaderAt: scratch, size: size, scratch: scratch}, nil
}

// fill writes what is not zero.
func fill(ctx context.Context, to *os.File, r io.Reader, most int64) (size int64, err error) {
	for buf := make([]byte, 64<<10); ; {
		n := 0
		for n < len(buf) && err == nil { // not io.ReadFull: an end before the end must be told from the end
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
		if size+int64(n) > most {
			return 0, fmt.Errorf("unpacks to more than %d bytes", most)
		}
		if !zero(buf[:n]) {
			if _, err := to.WriteAt(buf[:n], size); err != nil {
				return 0, err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, to.Truncate(size)
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return 0, err
		}
	}
}
