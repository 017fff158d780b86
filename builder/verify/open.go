package verify

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/imgbuild/imgbuild/internal/qcowview"
)

// opened is a disk to read, in whatever file it came.
type opened struct {
	io.ReaderAt
	format  string
	size    int64
	scratch *os.File // what it was unpacked to; nil: it is read where it lies
	medium  *medium  // what brings it to a machine; nil: it is a disk itself
}

// close gives the scratch file back.
func (o *opened) close() {
	if o.scratch != nil {
		_ = o.scratch.Close() // it has no name any more
	}
}

// format is one that disks come in. A packed one is for people and clouds: no machine takes
// it as it is.
type format struct {
	name   string
	packed bool
	is     func(f io.ReaderAt, size int64) bool
	open   func(ctx context.Context, f *os.File, size int64) (*opened, error)
}

// formats are told by their magic, one after the other; what none of them is, is raw.
var formats = []format{
	{"qcow2", false, begins("QFI\xfb"), direct(openQcow2)},
	{"vmdk", false, begins("KDMV"), direct(openVMDK)},
	{"vhdx", false, begins("vhdxfile"), direct(openVHDX)},
	{"vhd", false, isVHD, direct(openVHD)},
	{"iso", false, isMedium, openMedium},
	{"ova", true, firstIn(isDescriptor), openOVA},
	{"containerdisk", true, firstIn(isLayout), openContainerDisk},
	{"raw.zst", true, begins("\x28\xb5\x2f\xfd"), openZstd},
	{"gce", true, isGCE, openGCE},
	{"raw.gz", true, isGzip, openGzip},
	{"raw", false, func(io.ReaderAt, int64) bool { return true }, func(_ context.Context, f *os.File, size int64) (*opened, error) {
		return &opened{ReaderAt: f, size: size}, nil
	}},
}

// tell is the format of a file.
func tell(f *os.File) (format, int64, error) {
	info, err := f.Stat()
	if err != nil {
		return format{}, 0, err
	}
	if err := readAt(f, make([]byte, 4), 0); err != nil {
		return format{}, 0, fmt.Errorf("reading the first bytes: %w", err)
	}
	i := slices.IndexFunc(formats, func(is format) bool { return is.is(f, info.Size()) })
	return formats[i], info.Size(), nil
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
	format, size, err := tell(f)
	if err != nil {
		return nil, err
	}
	disk, err := format.open(ctx, f, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", format.name, err)
	}
	disk.format = format.name
	return disk, nil
}

// maxDisk bounds what an image may claim to be the size of, in bytes.
const maxDisk = 1 << 42

func openQcow2(f io.ReaderAt, _ int64) (io.ReaderAt, int64, error) { return qcowview.Open(f) }
