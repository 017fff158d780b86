// Package vhdx writes disk images in Hyper-V's format, dynamic ones: blocks of 1 MiB, those that
// are zero left out. It follows MS-VHDX ([MS-VHDX], revision 7.0): the section is
// named with each structure. There is no log, no parent and no bitmap. It reads no VHDX.
package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"unicode/utf16"

	"github.com/google/uuid"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

const (
	kib, mib = 1 << 10, 1 << 20
	block    = mib // the smallest that there is
	sector   = 512
	maxSize  = 64 << 40 // section 2.6.2.2

	// Where everything lies: the header section (2.2), each region behind it on a whole MiB.
	identifierAt = 0
	headerAt     = 64 * kib // twice
	regionAt     = 192 * kib
	logAt        = mib // a hole
	metadataAt   = 2 * mib
	tableAt      = 3 * mib // the block allocation table

	// perChunk is how many blocks are followed by an entry for a bitmap, which there is none of (2.5).
	perChunk = (8 * mib) * sector / block
	// present is a block's state (2.5.1.1); that of the others, not present, is 0 and reads as zeros.
	present = 6
)

// Region and metadata items, by their GUIDs (2.2.3.2, 2.6.2).
const (
	tableRegion    = "2dc27766-f623-4200-9d64-115e9bfd4a08"
	metadataRegion = "8b7ca206-4790-4b9a-b8fe-575f050f886e"

	fileParameters = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
	diskSize       = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
	diskID         = "beca12ab-b2e6-4523-93ef-c309e000c746"
	logicalSector  = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
	physicalSector = "cda348c7-445d-4471-9cc9-e9885251c556"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Write replaces what is in dst, an empty file, with a VHDX image of the first size bytes of src, whole MiB. Holes
// are not read. What tells it from other images comes of id. Memory: as sparse.Blocks, and 8 MiB for each TiB.
// The caller closes dst; after an error its content is worthless.
func Write(ctx context.Context, dst *os.File, src io.ReaderAt, size int64, id uuid.UUID) error {
	if size <= 0 || size > maxSize || size%mib != 0 {
		return fmt.Errorf("writing vhdx: disk of %d bytes, must be 1 to %d and whole MiB", size, int64(maxSize))
	}
	blocks := size / block
	table := make([]byte, (8*(blocks+(blocks-1)/perChunk)+mib-1)/mib*mib)
	at := tableAt + int64(len(table))
	err := sparse.Blocks(ctx, src, size, block, nil, func(b *sparse.Block) error {
		n := b.At / block
		binary.LittleEndian.PutUint64(table[8*(n+n/perChunk):], uint64(at/mib)<<20|present) // #nosec G115 -- not negative
		_, err := dst.WriteAt(b.Plain, at)
		at += block
		return err
	})
	for _, part := range []struct {
		at   int64
		text []byte
	}{
		{tableAt, table}, {metadataAt, metadata(size, id)},
		{regionAt, regions(len(table))}, {regionAt + 64*kib, regions(len(table))},
		{headerAt, header(1, id)}, {headerAt + 64*kib, header(2, id)},
		{identifierAt, identifier()},
	} {
		if err == nil {
			_, err = dst.WriteAt(part.text, part.at)
		}
	}
	if err != nil {
		return fmt.Errorf("writing vhdx: %w", err)
	}
	return nil
}

// identifier is the File Type Identifier (2.2.1).
func identifier() []byte {
	b := append(make([]byte, 0, 520), "vhdxfile"...)
	for _, c := range utf16.Encode([]rune("imgbuild")) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b[:520]
}

// header is one of two (2.2.2); the one with the higher sequence number counts. Its log is empty.
func header(sequence uint64, id uuid.UUID) []byte {
	le := binary.LittleEndian
	b := make([]byte, 4*kib)
	copy(b, "head")
	le.PutUint64(b[8:], sequence)
	copy(b[16:], guid(uuid.NewSHA1(id, []byte("file"))))
	copy(b[32:], guid(uuid.NewSHA1(id, []byte("data"))))
	le.PutUint16(b[66:], 1) // the format's version
	le.PutUint32(b[68:], mib)
	le.PutUint64(b[72:], logAt)
	return summed(b)
}

// regions is the Region Table (2.2.3).
func regions(table int) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64*kib)
	copy(b, "regi")
	le.PutUint32(b[8:], 2)
	for i, r := range []struct {
		id       string
		at, size int
	}{{tableRegion, tableAt, table}, {metadataRegion, metadataAt, mib}} {
		e := b[16+32*i:]
		copy(e, guid(uuid.MustParse(r.id)))
		le.PutUint64(e[16:], uint64(r.at))   // #nosec G115 -- not negative
		le.PutUint32(e[24:], uint32(r.size)) // #nosec G115 -- maxSize bounds it
		le.PutUint32(e[28:], 1)              // required
	}
	return summed(b)
}

// summed has its CRC-32C entered.
func summed(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, castagnoli))
	return b
}

// metadata is the metadata region (2.6): its table, and the items from 64 KiB on.
func metadata(size int64, id uuid.UUID) []byte {
	const required, ofDisk = 4, 2
	le := binary.LittleEndian
	items := []struct {
		id    string
		flags uint32
		value []byte
	}{
		{fileParameters, required, le.AppendUint64(nil, block)},           // nothing fixed, no parent
		{diskSize, required | ofDisk, le.AppendUint64(nil, uint64(size))}, // #nosec G115 -- checked positive
		{diskID, required | ofDisk, guid(uuid.NewSHA1(id, []byte("disk")))},
		{logicalSector, required | ofDisk, le.AppendUint32(nil, sector)},
		{physicalSector, required | ofDisk, le.AppendUint32(nil, 4096)},
	}
	b := make([]byte, mib)
	copy(b, "metadata")
	le.PutUint16(b[10:], uint16(len(items))) // #nosec G115 -- five
	at := 64 * kib
	for i, item := range items {
		e := b[32*(i+1):]
		copy(e, guid(uuid.MustParse(item.id)))
		le.PutUint32(e[16:], uint32(at))              // #nosec G115 -- below 1 MiB
		le.PutUint32(e[20:], uint32(len(item.value))) // #nosec G115 -- at most 16
		le.PutUint32(e[24:], item.flags)
		copy(b[at:], item.value)
		at += len(item.value)
	}
	return b
}

// guid is a UUID as Microsoft stores one: the first three groups little-endian.
func guid(id uuid.UUID) []byte {
	be, le := binary.BigEndian, binary.LittleEndian
	b := le.AppendUint32(nil, be.Uint32(id[:]))
	b = le.AppendUint16(b, be.Uint16(id[4:]))
	b = le.AppendUint16(b, be.Uint16(id[6:]))
	return append(b, id[8:]...)
}
