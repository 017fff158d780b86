// Package vmdk writes disk images in VMware's format, variant streamOptimized: what
// vSphere imports, and what a disk in an OVA is. It follows the Virtual Disk Format 1.1
// (VMware, 2011): grains of 64 KiB, each deflated, grain tables where they end, the
// grain directory behind all, and a footer that knows where it is, so that the file is
// written from front to back. It reads no VMDK.
package vmdk

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zlib"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

const (
	sector      = 512
	grain       = 64 << 10
	perTable    = 512 // grains of one grain table
	tableSize   = 4 * perTable
	descriptor  = 1       // sector where the descriptor begins
	descriptors = 20      // sectors that it has
	overhead    = grain   // where the first grain lies, in bytes
	unit        = 1 << 20 // of sizes: vSphere counts disks in whole MiB
	// maxSize keeps each sector number of the file within the 32 bits of a grain table.
	maxSize = 1 << 40

	atEnd = 1<<64 - 1 // the header's grain directory is in the footer
)

// Flags of the header: the newline test is valid, grains are compressed, markers lie
// before what is no grain.
const flags = 1 | 1<<16 | 1<<17

// Types of markers.
const (
	markTable     = 1
	markDirectory = 2
	markFooter    = 3
)

// Write writes the first size bytes of src, whole MiB, to w as a streamOptimized image.
// Grains that are zero are left out, holes are not read. What tells it from other images comes
// of id. Memory: as sparse.Blocks, and 2 KiB for each 32 MiB that hold data at most.
func Write(ctx context.Context, w io.Writer, src io.ReaderAt, size int64, id uuid.UUID) error {
	if size <= 0 || size > maxSize || size%unit != 0 {
		return fmt.Errorf("writing vmdk: disk of %d bytes, must be 1 to %d and whole MiB", size, int64(maxSize))
	}
	tables := (size + grain*perTable - 1) / (grain * perTable)
	e := &extent{w: bufio.NewWriterSize(w, 1<<20), directory: make([]uint32, tables), table: make([]uint32, perTable)}
	head := append(header(size, atEnd), make([]byte, overhead-sector)...)
	copy(head[descriptor*sector:(descriptor+descriptors)*sector], describe(size, id))
	e.write(head)
	err := sparse.Blocks(ctx, src, size, grain, deflater, e.put)
	if err == nil {
		err = e.finish(size)
	}
	if err != nil {
		return fmt.Errorf("writing vmdk: %w", err)
	}
	return nil
}

// deflater makes what packs a grain: RFC 1950, as VMware's own programs do.
func deflater() (func(*sparse.Block) error, error) {
	z, err := zlib.NewWriterLevel(io.Discard, zlib.DefaultCompression)
	return func(b *sparse.Block) error {
		z.Reset(&b.Packed)
		_, err := z.Write(b.Plain)
		return errors.Join(err, z.Close())
	}, err
}

// header is the SparseExtentHeader.
func header(size int64, directory uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, sector)
	copy(b, "KDMV")
	le.PutUint32(b[4:], 3) // the version, of streamOptimized
	le.PutUint32(b[8:], flags)
	le.PutUint64(b[12:], uint64(size)/sector) // #nosec G115 -- checked positive
	le.PutUint64(b[20:], grain/sector)
	le.PutUint64(b[28:], descriptor)
	le.PutUint64(b[36:], descriptors)
	le.PutUint32(b[44:], perTable)
	le.PutUint64(b[56:], directory) // at 48 there would be a redundant one
	le.PutUint64(b[64:], overhead/sector)
	copy(b[73:], "\n \r\n") // finds out what changed newlines
	le.PutUint16(b[77:], 1) // deflate
	return b
}

// describe is the descriptor. The file's name in it means nothing: the disk is in this very file.
func describe(size int64, id uuid.UUID) string {
	const heads, perTrack = 255, 63 // of an LSI controller, as for all disks above 1 GiB
	return strings.Join([]string{
		"# Disk DescriptorFile",
		"version=1",
		fmt.Sprintf("CID=%08x", binary.BigEndian.Uint32(id[:4])&0x7fffffff), // ffffffff would be none
		"parentCID=ffffffff",
		`createType="streamOptimized"`,
		"",
		"# Extent description",
		fmt.Sprintf(`RDONLY %d SPARSE "disk.vmdk"`, size/sector),
		"",
		"# The Disk Data Base",
		"#DDB",
		"",
		`ddb.adapterType = "lsilogic"`,
		fmt.Sprintf(`ddb.geometry.cylinders = "%d"`, min(size/sector/heads/perTrack, 65535)),
		fmt.Sprintf(`ddb.geometry.heads = "%d"`, heads),
		fmt.Sprintf(`ddb.geometry.sectors = "%d"`, perTrack),
		fmt.Sprintf(`ddb.longContentID = "%x"`, id[:]),
		`ddb.virtualHWVersion = "15"`,
		"",
	}, "\n")
}

// extent is the image being written.
type extent struct {
	w         *bufio.Writer
	at        int64
	directory []uint32 // sectors of grain tables; 0: all of its grains are zero
	table     []uint32 // the one that is being filled: sectors of grains
	index     int64    // its number
	used      bool     // it has an entry
}

// write appends, and fills up to a whole sector. The writer keeps its first error for finish.
func (e *extent) write(parts ...[]byte) {
	for _, b := range parts {
		_, _ = e.w.Write(b)
		e.at += int64(len(b))
	}
	n := -e.at & (sector - 1)
	_, _ = e.w.Write(make([]byte, n))
	e.at += n
}

// here is the present sector: maxSize, and what deflate adds at worst, is below 2³².
func (e *extent) here() uint32 { return uint32(e.at / sector) } // #nosec G115 -- maxSize bounds it

// put appends a grain with its marker.
func (e *extent) put(b *sparse.Block) error {
	number := b.At / grain
	if e.index != number/perTable {
		e.endTable()
		e.index = number / perTable
	}
	e.table[number%perTable], e.used = e.here(), true
	marker := binary.LittleEndian.AppendUint64(nil, uint64(b.At)/sector)      // #nosec G115 -- not negative
	marker = binary.LittleEndian.AppendUint32(marker, uint32(b.Packed.Len())) // #nosec G115 -- of 64 KiB
	e.write(marker, b.Packed.Bytes())
	_, err := e.w.Write(nil) // what went wrong
	return err
}

// mark appends the marker of what is no grain.
func (e *extent) mark(kind uint32, size int) {
	marker := binary.LittleEndian.AppendUint64(nil, uint64(size+sector-1)/sector) // #nosec G115 -- not negative
	e.write(binary.LittleEndian.AppendUint32(append(marker, 0, 0, 0, 0), kind))
}

// endTable appends the grain table, if there is anything in it.
func (e *extent) endTable() {
	if !e.used {
		return
	}
	e.mark(markTable, tableSize)
	e.directory[e.index], e.used = e.here(), false
	e.write(littleEndian(e.table))
	clear(e.table)
}

// finish appends the grain directory, the footer and the end of the stream.
func (e *extent) finish(size int64) error {
	e.endTable()
	e.mark(markDirectory, 4*len(e.directory))
	directory := e.at / sector
	e.write(littleEndian(e.directory))
	e.mark(markFooter, sector)
	e.write(header(size, uint64(directory))) // #nosec G115 -- not negative
	e.write(make([]byte, sector))
	return e.w.Flush()
}

func littleEndian(words []uint32) []byte {
	b := make([]byte, 0, 4*len(words))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}
