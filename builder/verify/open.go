package verify

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lima-vm/go-qcow2reader"
	"github.com/lima-vm/go-qcow2reader/image"
)

// opened is a disk to read, in whatever file it came.
type opened struct {
	io.ReaderAt
	format  string
	size    int64
	scratch *os.File // what it was unpacked to; nil: it is read where it lies
}

// close gives the scratch file back.
func (o *opened) close() {
	if o.scratch != nil {
		_ = o.scratch.Close() // it has no name any more
	}
}

// formats are told by their magic; what none of them is, is raw.
var formats = []struct {
	name string
	is   func(f io.ReaderAt, size int64) bool
	open func(ctx context.Context, f *os.File, size int64) (*opened, error)
}{
	{string(image.Type("qcow2")), begins("QFI\xfb"), direct(openQcow2)},
	{"vmdk", begins("KDMV"), direct(openVMDK)},
	{"vhd", isVHD, direct(openVHD)},
	{"ova", firstIn(isDescriptor), openOVA},
}

// begins tells a format by the first bytes of its files.
func begins(magic string) func(io.ReaderAt, int64) bool {
	return func(f io.ReaderAt, _ int64) bool { return hasAt(f, 0, magic) }
}

func hasAt(f io.ReaderAt, at int64, text string) bool {
	b := make([]byte, len(text))
	return at >= 0 && readAt(f, b, at) == nil && string(b) == text
}

// direct opens a format that can be read where it lies.
func direct(read func(f io.ReaderAt, size int64) (io.ReaderAt, int64, error)) func(context.Context, *os.File, int64) (*opened, error) {
	return func(_ context.Context, f *os.File, size int64) (*opened, error) {
		disk, size, err := read(f, size)
		return &opened{ReaderAt: disk, size: size}, err
	}
}

// open tells the format and opens the disk in f; what was opened is closed before f is.
func open(ctx context.Context, f *os.File) (*opened, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := readAt(f, make([]byte, 4), 0); err != nil {
		return nil, fmt.Errorf("reading the first bytes: %w", err)
	}
	for _, format := range formats {
		if format.is(f, info.Size()) {
			disk, err := format.open(ctx, f, info.Size())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", format.name, err)
			}
			disk.format = format.name
			return disk, nil
		}
	}
	return &opened{ReaderAt: f, format: "raw", size: info.Size()}, nil
}

// maxDisk bounds what an image may claim to be the size of, in bytes.
const maxDisk = 1 << 42

// openQcow2 refuses an image with a backing file, so that nothing but the file itself is read.
func openQcow2(f io.ReaderAt, _ int64) (io.ReaderAt, int64, error) {
	header := make([]byte, 20)
	if err := readAt(f, header, 0); err != nil {
		return nil, 0, err
	}
	if binary.BigEndian.Uint64(header[8:]) != 0 {
		return nil, 0, errors.New("the image has a backing file: give one that stands alone")
	}
	img, err := qcow2reader.Open(f)
	if err != nil {
		return nil, 0, err
	}
	return img, img.Size(), img.Readable()
}
