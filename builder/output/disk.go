package output

import (
	"errors"
	"os"
)

// convert makes the file dst of the disk, which has size bytes.
func (m *Made) convert(dst string, write func(out, disk *os.File, size int64) error) error {
	return reading(m.Disk, func(disk *os.File, size int64) error {
		return create(dst, func(out *os.File) error { return write(out, disk, size) })
	})
}

// create makes a file.
func create(dst string, write func(out *os.File) error) error {
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- an image holds no secret
	if err != nil {
		return err
	}
	return errors.Join(write(out), out.Close())
}

// reading opens a scratch file, which has size bytes.
func reading(file string, read func(in *os.File, size int64) error) error {
	in, err := os.Open(file) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	info, err := in.Stat()
	if err != nil {
		return err
	}
	return read(in, info.Size())
}
