// Package sparse reads files with holes (lseek(2), SEEK_DATA) without making the
// kernel fill pages with zeros for them: their digest, a copy, or block by block; and
// files into which contents are being written meanwhile.
package sparse

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// block is hashed at a time, in bytes; a whole number of pages.
const block = 4 << 20

// SHA256 is the digest of all of f, holes read as zeros, and f's size in bytes.
// The file's offset is moved. Nobody may make the file shorter meanwhile: that, and a
// disk that fails, is an error.
func SHA256(f *os.File) (sum []byte, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	size = info.Size()
	h := sha256.New()
	if err := add(h, f, 0, size); err != nil {
		return nil, 0, err
	}
	return h.Sum(nil), size, nil
}

// zeros are what holes are read as.
var zeros [64 << 10]byte

// add hashes the bytes from at to end.
func add(h hash.Hash, f *os.File, at, end int64) error {
	for at < end {
		data, hole, err := next(f, at, end)
		if err != nil {
			return fmt.Errorf("looking for holes in %s: %w", f.Name(), err)
		}
		for n := int64(0); at < data; at += n {
			n = min(int64(len(zeros)), data-at)
			h.Write(zeros[:n])
		}
		for n := int64(0); at < hole; at += n {
			n = min(block, hole-at)
			if err := addData(h, f, at, n); err != nil {
				return fmt.Errorf("reading %s: %w", f.Name(), err)
			}
		}
	}
	return nil
}

// next is where data begins at or behind at, and where it ends. A file system
// that knows no holes says that all is data. What macOS takes for a hole may be data that
// was written just now (coreutils' pull request 68): there all is data.
func next(f *os.File, at, size int64) (data, end int64, err error) {
	if runtime.GOOS == "darwin" {
		return at, size, nil
	}
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

// addData hashes size bytes from byte at on where they lie in the page cache: copying them
// first takes an eighth as long as hashing them.
func addData(h hash.Hash, f *os.File, at, size int64) (err error) {
	page := at % int64(os.Getpagesize())
	data, err := unix.Mmap(int(f.Fd()), at-page, int(page+size), unix.PROT_READ, unix.MAP_SHARED) // #nosec G115 -- at most a block and a page
	if err != nil {                                                                               // there are file systems that cannot map
		_, err = io.Copy(h, io.NewSectionReader(f, at, size))
		return err
	}
	defer unix.Munmap(data) //nolint:errcheck // it was mapped
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // what SetPanicOnFault promises
			err = io.ErrUnexpectedEOF
		default:
			panic(fault)
		}
	}()
	h.Write(data[page:])
	return nil
}
