package verify

import (
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// vmdk reads a streamOptimized image (VMware, Virtual Disk Format 1.1): by the grain
// directory, and each grain only where its marker says that it is the one.
type vmdk struct {
	f         io.ReaderAt
	directory int64 // where it lies, in bytes
	size      int64
	inflate   sync.Pool
}

const (
	grainSize      = 64 << 10
	grainsPerTable = 512
	// vmdkFlags: the newlines can be tested, grains are compressed, there are markers.
	vmdkFlags = 1 | 1<<16 | 1<<17
)

// openVMDK takes a file whose grain directory is in a footer, as what is written in one go
// has it, or in the header, as QEMU writes it.
func openVMDK(f io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	le := binary.LittleEndian
	header := make([]byte, sectorSize)
	if err := readAt(f, header, 0); err != nil {
		return nil, 0, err
	}
	switch {
	case le.Uint32(header[8:])&^2 != vmdkFlags || le.Uint16(header[77:]) != 1: // 2: a redundant directory, which is not read
		return nil, 0, errors.New("no image of the type streamOptimized")
	case string(header[73:77]) != "\n \r\n":
		return nil, 0, errors.New("something has changed its newlines")
	case le.Uint64(header[20:]) != grainSize/sectorSize || le.Uint32(header[44:]) != grainsPerTable:
		return nil, 0, fmt.Errorf("grains of %d sectors, %d in a table: want %d and %d", le.Uint64(header[20:]), le.Uint32(header[44:]), grainSize/sectorSize, grainsPerTable)
	}
	capacity, directory := le.Uint64(header[12:]), le.Uint64(header[56:])
	if directory == 1<<64-1 {
		footer, err := readFooter(f, size, header)
		if err != nil {
			return nil, 0, err
		}
		directory = le.Uint64(footer[56:])
	}
	if capacity > maxDisk/sectorSize || directory > maxDisk/sectorSize {
		return nil, 0, fmt.Errorf("a disk of %d sectors, with its grain directory at %d", capacity, directory)
	}
	v := &vmdk{f: f, directory: int64(directory) * sectorSize, size: int64(capacity) * sectorSize} // #nosec G115 -- checked
	return v, v.size, nil
}

// readFooter reads the last sector but one, behind its marker, before the end of the stream.
func readFooter(f io.ReaderAt, size int64, header []byte) ([]byte, error) {
	end := make([]byte, 3*sectorSize)
	if err := readAt(f, end, size-int64(len(end))); err != nil {
		return nil, fmt.Errorf("reading the footer: %w", err)
	}
	marker, footer, eos := end[:sectorSize], end[sectorSize:2*sectorSize], end[2*sectorSize:]
	if binary.LittleEndian.Uint64(marker) != 1 || binary.LittleEndian.Uint64(marker[8:]) != 3<<32 || !zero(eos) {
		return nil, errors.New("it does not end with a footer")
	}
	if string(footer[:56]) != string(header[:56]) || string(footer[64:]) != string(header[64:]) {
		return nil, errors.New("its footer is not its header's")
	}
	return footer, nil
}

// ReadAt implements io.ReaderAt.
func (v *vmdk) ReadAt(p []byte, off int64) (int, error) {
	return readPieces(p, off, v.size, grainSize, v.read)
}

// read reads a part of a grain.
func (v *vmdk) read(p []byte, grain, off int64) error {
	at, err := v.find(grain)
	if err != nil {
		return err
	}
	if at == 0 {
		clear(p)
		return nil
	}
	le := binary.LittleEndian
	marker := make([]byte, 12)
	if err := readAt(v.f, marker, at); err != nil {
		return err
	}
	length := int64(le.Uint32(marker[8:]))
	if le.Uint64(marker) != uint64(grain)*(grainSize/sectorSize) || length > 2*grainSize { //nolint:gosec // not negative
		return fmt.Errorf("grain %d: its marker is of sector %d, with %d bytes", grain, le.Uint64(marker), length)
	}
	plain, err := v.unpack(io.NewSectionReader(v.f, at+12, length))
	if err != nil {
		return fmt.Errorf("grain %d: %w", grain, err)
	}
	copy(p, plain[off:])
	return nil
}

// find is where the grain's marker lies; 0: the grain is zero.
func (v *vmdk) find(grain int64) (int64, error) {
	entry := make([]byte, 4)
	if err := readAt(v.f, entry, v.directory+4*(grain/grainsPerTable)); err != nil {
		return 0, fmt.Errorf("reading the grain directory: %w", err)
	}
	table := int64(binary.LittleEndian.Uint32(entry)) * sectorSize
	if table == 0 {
		return 0, nil
	}
	if err := readAt(v.f, entry, table+4*(grain%grainsPerTable)); err != nil {
		return 0, fmt.Errorf("reading a grain table: %w", err)
	}
	return int64(binary.LittleEndian.Uint32(entry)) * sectorSize, nil
}

// unpack inflates a grain, to the checksum at its end.
func (v *vmdk) unpack(r io.Reader) ([]byte, error) {
	z, _ := v.inflate.Get().(io.ReadCloser)
	var err error
	if z == nil {
		z, err = zlib.NewReader(r)
	} else {
		err = z.(zlib.Resetter).Reset(r, nil)
	}
	if err != nil {
		return nil, err
	}
	defer v.inflate.Put(z)
	plain := make([]byte, grainSize+1)
	n, err := io.ReadFull(z, plain)
	switch {
	case n == grainSize && errors.Is(err, io.ErrUnexpectedEOF): // its end, checksum and all
		return plain[:n], nil
	case err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return nil, fmt.Errorf("does not inflate to %d bytes", grainSize)
	}
	return nil, err
}

// readPieces is ReadAt of a disk that can be read piece by piece.
func readPieces(p []byte, off, size, piece int64, read func(p []byte, index, off int64) error) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at < 0 || at >= size {
			return n, io.EOF
		}
		m := min(int64(len(p)-n), piece-at%piece, size-at)
		if err := read(p[n:n+int(m)], at/piece, at%piece); err != nil {
			return n, err
		}
		n += int(m)
	}
	return n, nil
}
