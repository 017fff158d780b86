package output

import (
	"context"
	"errors"
	"os"

	"github.com/imgbuild/imgbuild/internal/qcow2"
)

func writeQcow2(ctx context.Context, m *Made, dst string, compress bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		return qcow2.Write(ctx, out, disk, size, qcow2.Options{Compress: compress})
	})
}

// convert makes the file dst of the disk, which has size bytes.
func (m *Made) convert(dst string, write func(out, disk *os.File, size int64) error) error {
	disk, err := os.Open(m.Disk) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer disk.Close() //nolint:errcheck // read only
	info, err := disk.Stat()
	if err != nil {
		return err
	}
	return create(dst, func(out *os.File) error { return write(out, disk, info.Size()) })
}

// create makes a file.
func create(dst string, write func(out *os.File) error) error {
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- an image holds no secret
	if err != nil {
		return err
	}
	return errors.Join(write(out), out.Close())
}
