// Package output writes what was assembled as the formats that people ask for:
// one file per format, one table. It rebuilds nothing.
package output

import (
	"context"
	"fmt"
	"os"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/qcow2"
)

// Format is one output format. Write makes the file dst from the raw disk image;
// where it consumes the disk (Last), it runs after all others.
type Format struct {
	Name  string
	Doc   string
	Last  bool
	Write func(ctx context.Context, disk, dst string, compress bool) error
}

// All lists the formats.
func All() []Format {
	return []Format{
		{Name: "qcow2", Doc: "QEMU copy-on-write image, version 3", Write: writeQcow2},
		{Name: "raw", Doc: "the disk byte for byte, sparse", Last: true, Write: writeRaw},
	}
}

// Find returns the format of that name.
func Find(name string) (Format, error) {
	for _, f := range All() {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fault.New(fault.Spec, "unknown output format %q", name)
}

func writeRaw(_ context.Context, disk, dst string, _ bool) error { return os.Rename(disk, dst) }

func writeQcow2(ctx context.Context, disk, dst string, compress bool) (err error) {
	src, err := os.Open(disk) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	info, err := src.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- an image holds no secret
	if err != nil {
		return err
	}
	if err := qcow2.Write(ctx, out, src, info.Size(), qcow2.Options{Compress: compress}); err != nil {
		return fmt.Errorf("writing qcow2: %w", closeAfter(out, err))
	}
	return out.Close()
}

func closeAfter(f *os.File, err error) error {
	if cerr := f.Close(); err == nil {
		return cerr
	}
	return err
}
