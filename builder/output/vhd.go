package output

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/google/uuid"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// maxVHD is the most that Hyper-V and Azure take, in bytes.
const maxVHD = 2040 << 30

// writeVHD writes a fixed VHD, as Azure wants it: the disk, whole MiB, with the footer behind it.
func writeVHD(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		if size <= 0 || size > maxVHD || size%(1<<20) != 0 {
			return fmt.Errorf("writing vhd: disk of %d bytes, must be 1 to %d and whole MiB", size, int64(maxVHD))
		}
		if err := sparse.Copy(ctx, out, disk, size); err != nil {
			return fmt.Errorf("writing vhd: %w", err)
		}
		_, err := out.WriteAt(footer(size, repro.UUID(m.ID, "vhd")), size)
		return err
	})
}

// footer is the "Hard Disk Footer Format" of the Virtual Hard Disk Image Format
// Specification 1.0 (Microsoft, 2006), of a fixed disk.
func footer(size int64, id uuid.UUID) []byte {
	const year2000 = 946684800
	be := binary.BigEndian
	b := make([]byte, 512)
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)                                    // reserved, always set
	be.PutUint32(b[12:], 1<<16)                               // the format's version, 1.0
	be.PutUint64(b[16:], 1<<64-1)                             // nothing dynamic
	be.PutUint32(b[24:], uint32(repro.DefaultEpoch-year2000)) // #nosec G115 -- a constant
	copy(b[28:], "win \x00\x0a\x00\x00Wi2k")                  // as Hyper-V: the size counts, not the geometry
	be.PutUint64(b[40:], uint64(size))                        // #nosec G115 -- checked positive
	be.PutUint64(b[48:], uint64(size))                        // #nosec G115 -- checked positive
	copy(b[56:], geometry(size/512))
	be.PutUint32(b[60:], 2) // fixed
	copy(b[68:], id[:])
	sum := uint32(0)
	for _, c := range b {
		sum += uint32(c)
	}
	be.PutUint32(b[64:], ^sum)
	return b
}

// geometry is the specification's "CHS Calculation": cylinders, heads, sectors per track.
func geometry(sectors int64) []byte {
	sectors = min(sectors, 65535*16*255)
	perTrack, heads := int64(255), int64(16)
	tracks := sectors / perTrack
	if sectors < 65535*16*63 {
		perTrack = 17
		tracks = sectors / perTrack
		heads = max((tracks+1023)/1024, 4)
		if tracks >= heads*1024 || heads > 16 {
			perTrack, heads = 31, 16
			tracks = sectors / perTrack
		}
		if tracks >= heads*1024 {
			perTrack, heads = 63, 16
			tracks = sectors / perTrack
		}
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(tracks/heads)), byte(heads), byte(perTrack)) // #nosec G115 -- bounded above
}
