package verify

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// medium is an install medium around a disk: an ISO 9660 volume that is a partitioned disk, too.
type medium struct {
	volume     io.ReaderAt
	size       int64
	esp, image *Partition
}

// isMedium tells one; a seed disk has no partition table.
func isMedium(f io.ReaderAt, _ int64) bool { return isISO(f) && hasAt(f, sectorSize, "EFI PART") }

// openMedium opens the disk that it installs.
func openMedium(_ context.Context, f *os.File, size int64) (*opened, error) {
	parts, err := readTable(f, size)
	if err != nil {
		return nil, err
	}
	m := &medium{f, size, find(parts, typeESP), find(parts, typeData)}
	if m.esp == nil || m.image == nil {
		return nil, errors.New("want an EFI system partition, and one with the disk that it installs")
	}
	return &opened{ReaderAt: section(f, m.image), size: m.image.Size, medium: m}, nil
}

// readMedium checks what is around the disk: it boots, from a CD and from a stick, into the same root.
func (r *Report) readMedium(m *medium) error {
	if m == nil {
		return nil
	}
	boot := &Report{processor: r.processor}
	if err := boot.readBoot(section(m.volume, m.esp), false); err != nil {
		return fmt.Errorf("the medium: %w", err)
	}
	for _, f := range boot.Findings {
		r.say(f.Check, f.Path, "the medium: %s", f.Message)
	}
	if boot.RootHash != r.RootHash {
		r.say("medium", boot.UKI, "its root hash is %s, that of the disk %s", boot.RootHash, r.RootHash)
	}
	if !slices.Contains(strings.Fields(boot.Cmdline), "imgbuild.medium") {
		r.say("medium", boot.UKI, "its command line has no imgbuild.medium: it would not look for the medium")
	}
	return m.readVolume(r)
}

const isoSector = 2048

// readVolume reads the volume's descriptors (ECMA-119, El Torito 1.0): they must name what the
// partition table has.
func (m *medium) readVolume(r *Report) error {
	le := binary.LittleEndian
	catalog, files := int64(0), map[string]Partition{}
	for at := int64(16 * isoSector); ; at += isoSector {
		d := make([]byte, isoSector)
		if err := readAt(m.volume, d, at); err != nil {
			return fmt.Errorf("the medium's volume descriptors: %w", err)
		}
		if string(d[1:6]) != "CD001" || d[0] == 255 {
			break
		}
		switch {
		case d[0] == 0 && bytes.HasPrefix(d[7:], []byte("EL TORITO SPECIFICATION\x00")):
			catalog = int64(le.Uint32(d[71:])) * isoSector
		case d[0] == 1:
			if blocks := int64(le.Uint32(d[80:])) * isoSector; blocks != m.size {
				r.say("medium", "", "the volume has %d bytes, the file %d", blocks, m.size)
			}
			root := make([]byte, min(le.Uint32(d[156+10:]), 1<<20))
			if err := readAt(m.volume, root, int64(le.Uint32(d[156+2:]))*isoSector); err != nil {
				return fmt.Errorf("the medium's root folder: %w", err)
			}
			files = extentsOf(root)
		}
	}
	c := make([]byte, 64)
	if err := readAt(m.volume, c, catalog); err != nil || catalog == 0 {
		r.say("medium", "", "no El Torito boot catalog: %v", err)
		return nil
	}
	sum := uint16(0)
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(c[i:])
	}
	if at := int64(le.Uint32(c[40:])) * isoSector; sum != 0 || !bytes.HasPrefix(c, []byte{1, 0xef}) || !bytes.HasPrefix(c[32:], []byte{0x88, 0}) || at != m.esp.Start {
		r.say("medium", "", "the boot catalog does not let UEFI boot the EFI system partition at %d: %x", m.esp.Start, c[:44])
	}
	for name, p := range map[string]*Partition{"EFI.IMG;1": m.esp, "DISK.RAW;1": m.image} {
		if f := files[name]; f.Start != p.Start || f.Size != p.Size {
			r.say("medium", name, "%d bytes at %d, the partition %s has %d at %d", f.Size, f.Start, p.Name, p.Size, p.Start)
		}
	}
	return nil
}

// extentsOf are the files of a folder: where each begins, and how long it is in all its extents.
func extentsOf(folder []byte) map[string]Partition {
	le, out := binary.LittleEndian, map[string]Partition{}
	for len(folder) > 33 && int(folder[0]) <= len(folder) && 33+int(folder[32]) <= int(folder[0]) {
		name := string(folder[33 : 33+int(folder[32])])
		p, there := out[name]
		if !there {
			p.Start = int64(le.Uint32(folder[2:])) * isoSector
		}
		p.Size += int64(le.Uint32(folder[10:]))
		out[name] = p
		folder = folder[folder[0]:]
	}
	return out
}
