package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// isVHD tells a VHD (Virtual Hard Disk Image Format Specification 1.0) by its footer: a
// fixed one begins as its disk does.
func isVHD(f io.ReaderAt, size int64) bool { return hasAt(f, size-sectorSize, "conectix") }

// openVHD takes fixed disks alone.
func openVHD(f io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	be := binary.BigEndian
	footer := make([]byte, sectorSize)
	if err := readAt(f, footer, size-sectorSize); err != nil {
		return nil, 0, err
	}
	if be.Uint32(footer[60:]) != 2 || be.Uint64(footer[16:]) != 1<<64-1 {
		return nil, 0, errors.New("no fixed disk")
	}
	said, sum := be.Uint32(footer[64:]), uint32(0)
	clear(footer[64:68])
	for _, c := range footer {
		sum += uint32(c)
	}
	if said != ^sum {
		return nil, 0, errors.New("the footer's checksum is wrong")
	}
	if disk := be.Uint64(footer[48:]); disk != uint64(size-sectorSize) { //nolint:gosec // the footer was read
		return nil, 0, fmt.Errorf("its footer speaks of %d bytes, before it lie %d", disk, size-sectorSize)
	}
	return io.NewSectionReader(f, 0, size-sectorSize), size - sectorSize, nil
}
