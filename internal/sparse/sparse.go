// Package sparse reads files with holes (lseek(2), SEEK_DATA) without making the
// kernel fill pages with zeros for them.
package sparse

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const block = 1 << 20

// SHA256 is the digest of all of f, holes read as zeros, and f's size in bytes.
// The file's offset is moved.
func SHA256(f *os.File) (sum []byte, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size = info.Size()
	h, zeros, buf := sha256.New(), make([]byte, block), make([]byte, block)
	for at := int64(0); at < size; {
		data, end, err := next(f, at, size)
		if err != nil {
			return nil, 0, fmt.Errorf("looking for holes in %s: %w", f.Name(), err)
		}
		for ; at < data; at += min(block, data-at) {
			h.Write(zeros[:min(block, data-at)])
		}
		if err := add(h, io.NewSectionReader(f, data, end-data), buf); err != nil {
			return nil, 0, err
		}
		at = end
	}
	return h.Sum(nil), size, nil
}

// next is where data begins at or behind at, and where it ends. A file system
// that knows no holes says that all is data.
func next(f *os.File, at, size int64) (data, end int64, err error) {
	fd := int(f.Fd()) // #nosec G115 -- a descriptor is small
	data, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole
		return size, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = unix.Seek(fd, data, unix.SEEK_HOLE)
	return min(data, size), min(end, size), err
}

// add hashes what r has, hidden from io.Copy's shortcuts so that buf is used.
func add(h hash.Hash, r io.Reader, buf []byte) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, buf)
	return err
}
