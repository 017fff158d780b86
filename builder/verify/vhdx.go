package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// vhdx reads an image of [MS-VHDX] that has no parent and was closed in order.
type vhdx struct {
	f     io.ReaderAt
	table region // the block allocation table
	block int64  // bytes of a block
	chunk int64  // blocks that are followed by an entry for a bitmap
	size  int64
}

// region is one of the region table (section 2.2.3).
type region struct{ at, size int64 }

// What is looked up, by GUID (sections 2.2.3.2 and 2.6.2).
const (
	vhdxTable    = "2dc27766-f623-4200-9d64-115e9bfd4a08"
	vhdxMetadata = "8b7ca206-4790-4b9a-b8fe-575f050f886e"

	vhdxParameters = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
	vhdxSize       = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
	vhdxSector     = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
)

func openVHDX(f io.ReaderAt, _ int64) (io.ReaderAt, int64, error) {
	if err := checkVHDXHeader(f); err != nil {
		return nil, 0, err
	}
	regions, err := readRegions(f)
	if err != nil {
		return nil, 0, err
	}
	items, err := readMetadata(f, regions[vhdxMetadata])
	if err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	block, flags := int64(le.Uint32(items[vhdxParameters])), le.Uint32(items[vhdxParameters][4:])
	size, sector := le.Uint64(items[vhdxSize]), int64(le.Uint32(items[vhdxSector]))
	if block < 1<<20 || block > 256<<20 || block&(block-1) != 0 || sector != 512 && sector != 4096 || size > maxDisk {
		return nil, 0, fmt.Errorf("a disk of %d bytes, in blocks of %d and sectors of %d", size, block, sector)
	}
	if flags&2 != 0 {
		return nil, 0, errors.New("the image has a parent: give one that stands alone")
	}
	v := &vhdx{f: f, table: regions[vhdxTable], block: block, chunk: sector << 23 / block, size: int64(size)} // #nosec G115 -- checked
	return v, v.size, nil
}

// checkVHDXHeader wants the header that counts (section 2.2.2) to have an empty log.
func checkVHDXHeader(f io.ReaderAt) error {
	le := binary.LittleEndian
	var current []byte
	for _, at := range []int64{64 << 10, 128 << 10} {
		b := make([]byte, 4<<10)
		if readAt(f, b, at) == nil && string(b[:4]) == "head" && sumIsRight(b) && (current == nil || le.Uint64(b[8:]) > le.Uint64(current[8:])) {
			current = b
		}
	}
	switch {
	case current == nil:
		return errors.New("neither of its headers is good")
	case le.Uint16(current[66:]) != 1:
		return fmt.Errorf("version %d, want 1", le.Uint16(current[66:]))
	case !zero(current[48:64]):
		return errors.New("it was not closed: there is a log to replay")
	}
	return nil
}

// sumIsRight checks the CRC-32C of a structure, which counts as zero in itself.
func sumIsRight(b []byte) bool {
	said := binary.LittleEndian.Uint32(b[4:])
	clear(b[4:8])
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) == said
}

// readRegions reads the first region table that is good; there are no other regions than the two that must be.
func readRegions(f io.ReaderAt) (map[string]region, error) {
	le := binary.LittleEndian
	for _, at := range []int64{192 << 10, 256 << 10} {
		b := make([]byte, 64<<10)
		if readAt(f, b, at) != nil || string(b[:4]) != "regi" || !sumIsRight(b) || le.Uint32(b[8:]) != 2 {
			continue
		}
		out := map[string]region{}
		for e := b[16:80]; len(e) > 0; e = e[32:] {
			if at := le.Uint64(e[16:]); at <= maxDisk {
				out[guid(e[:16])] = region{int64(at), int64(le.Uint32(e[24:]))} // #nosec G115 -- checked
			}
		}
		if out[vhdxTable].at == 0 || out[vhdxMetadata].at == 0 {
			return nil, errors.New("no block allocation table, or no metadata")
		}
		return out, nil
	}
	return nil, errors.New("neither of its region tables is good")
}

// readMetadata reads the items that are needed (section 2.6).
func readMetadata(f io.ReaderAt, r region) (map[string][]byte, error) {
	le := binary.LittleEndian
	table := make([]byte, 64<<10)
	if err := readAt(f, table, r.at); err != nil || string(table[:8]) != "metadata" {
		return nil, fmt.Errorf("no metadata: %w", err)
	}
	out := map[string][]byte{}
	for i := 1; i <= min(int(le.Uint16(table[10:])), 2047); i++ {
		e := table[32*i:]
		if length := le.Uint32(e[20:]); length <= 1<<10 {
			b := make([]byte, length)
			if err := readAt(f, b, r.at+int64(le.Uint32(e[16:]))); err != nil {
				return nil, fmt.Errorf("reading metadata: %w", err)
			}
			out[guid(e[:16])] = b
		}
	}
	for id, length := range map[string]int{vhdxParameters: 8, vhdxSize: 8, vhdxSector: 4} {
		if len(out[id]) != length {
			return nil, fmt.Errorf("metadata item %s has %d bytes, want %d", id, len(out[id]), length)
		}
	}
	return out, nil
}

// ReadAt implements io.ReaderAt.
func (v *vhdx) ReadAt(p []byte, off int64) (int, error) {
	return readPieces(p, off, v.size, v.block, v.read)
}

// read reads a part of a block, by its state (section 2.5.1.1).
func (v *vhdx) read(p []byte, block, off int64) error {
	at, entry := 8*(block+block/v.chunk), make([]byte, 8)
	if at+8 > v.table.size {
		return fmt.Errorf("block %d is not in the table", block)
	}
	if err := readAt(v.f, entry, v.table.at+at); err != nil {
		return fmt.Errorf("reading the block allocation table: %w", err)
	}
	e := binary.LittleEndian.Uint64(entry)
	switch state := e & 7; state {
	case 0, 1, 2, 3: // not present, undefined, zero, unmapped
		clear(p)
		return nil
	case 6:
		return readAt(v.f, p, int64(e>>20)<<20+off) // #nosec G115 -- a wrong one only fails to read
	default:
		return fmt.Errorf("block %d has the state %d", block, state)
	}
}
