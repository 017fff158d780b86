// Package gpt writes and reads partition tables: GPT as in the UEFI
// specification, chapter 5 (protective MBR, backup header, sectors of 512
// bytes), with the partition types of the UAPI Discoverable Partitions
// Specification. It writes no partition's content.
package gpt

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"

	"github.com/imgbuild/imgbuild/internal/diskview"
)

const (
	sector = 512
	// Alignment of every partition's start and size, in bytes.
	Alignment = 1 << 20
	// Overhead is the room that the tables need at each end of the disk, in bytes.
	Overhead = Alignment
)

// Partition types of the Discoverable Partitions Specification.
const (
	TypeESP             = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	TypeBIOS            = "21686148-6449-6e6f-744e-656564454649" // GRUB's, which no specification has
	TypeVar             = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
	TypeRootAMD64       = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	TypeRootVerityAMD64 = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
	TypeRootARM64       = "b921b045-1df0-41c3-af44-4c6f280d3fae"
	TypeRootVerityARM64 = "df3300ce-d69f-4c92-978c-9bfb0f38d820"
)

// Attribute bits of the Discoverable Partitions Specification.
const (
	AttrReadOnly uint64 = 1 << 60
	AttrNoAuto   uint64 = 1 << 63
	AttrGrowFS   uint64 = 1 << 59
)

// Table is a disk's partition table. Partitions are numbered from 1 in the order given.
type Table struct {
	GUID       string // of the disk
	Partitions []Partition
}

// Partition is one entry; Start and Size are bytes, multiples of Alignment.
type Partition struct {
	Name     string // at most 36 UTF-16 code units
	TypeGUID string
	GUID     string
	Start    int64
	Size     int64
	Attrs    uint64
}

// RootTypes returns the partition types of root and root-verity for a Go
// architecture name, or an error that names the known ones.
func RootTypes(arch string) (root, verity string, err error) {
	switch arch {
	case "amd64":
		return TypeRootAMD64, TypeRootVerityAMD64, nil
	case "arm64":
		return TypeRootARM64, TypeRootVerityARM64, nil
	}
	return "", "", fmt.Errorf("no root partition type for architecture %q: use amd64 or arm64", arch)
}

// VerityGUIDs returns the GUIDs by which systemd finds a verity-protected root:
// the first and the last 128 bits of the root hash.
func VerityGUIDs(rootHash []byte) (root, verity string, err error) {
	if len(rootHash) < 32 {
		return "", "", fmt.Errorf("root hash of %d bytes, need at least 32", len(rootHash))
	}
	return dashed(rootHash[:16]), dashed(rootHash[len(rootHash)-16:]), nil
}

func dashed(b []byte) string {
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// DiskSize returns the smallest disk, in bytes, that holds the partitions and the backup table.
func (t Table) DiskSize() int64 {
	end := int64(Overhead)
	for _, p := range t.Partitions {
		end = max(end, p.Start+p.Size)
	}
	return end + Overhead
}

// Write puts the protective MBR, the table and its backup on the disk image f,
// whose present size is the disk's. It touches nothing between the first and
// the last MiB, except where a table lies.
func Write(f *os.File, t Table) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	if err := t.check(info.Size()); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	table := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, GUID: strings.ToUpper(t.GUID), ProtectiveMBR: true}
	for i, p := range t.Partitions {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: i + 1, Name: p.Name, Attributes: p.Attrs,
			Type: gpt.Type(strings.ToUpper(p.TypeGUID)), GUID: strings.ToUpper(p.GUID),
			Start: uint64(p.Start / sector), Size: uint64(p.Size), // #nosec G115 -- checked positive
		})
	}
	if err := table.Write(unsynced{f}, info.Size()); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	return nil
}

// unsynced hides os.File's Sync: the library would flush the whole image to
// the medium five times, and a half-written image is thrown away anyhow.
type unsynced struct{ backend.WritableFile }

// Read returns the table of a disk, from the backup if the primary is damaged. GUIDs
// are in lower case.
func Read(disk *io.SectionReader) (Table, error) {
	table, err := gpt.Read(diskview.View{SectionReader: disk}, sector, sector)
	if err != nil {
		return Table{}, fmt.Errorf("reading the partition table: %w", err)
	}
	out := Table{GUID: strings.ToLower(table.GUID)}
	for _, p := range table.Partitions {
		if p == nil || p.Type == gpt.Unused {
			continue
		}
		if p.End < p.Start || p.End >= 1<<53 {
			return Table{}, fmt.Errorf("reading the partition table: partition %d has sectors %d to %d", p.Index, p.Start, p.End)
		}
		out.Partitions = append(out.Partitions, Partition{
			Name: p.Name, TypeGUID: strings.ToLower(string(p.Type)), GUID: strings.ToLower(p.GUID), Attrs: p.Attributes,
			Start: int64(p.Start) * sector, Size: int64(p.End-p.Start+1) * sector, // #nosec G115 -- checked
		})
	}
	return out, nil
}

func (t Table) check(disk int64) error {
	if disk%sector != 0 {
		return fmt.Errorf("disk of %d bytes is not a whole number of %d-byte sectors", disk, sector)
	}
	if _, err := uuid.Parse(t.GUID); err != nil {
		return fmt.Errorf("disk GUID %q: %w", t.GUID, err)
	}
	if len(t.Partitions) > 128 {
		return fmt.Errorf("%d partitions, at most 128", len(t.Partitions))
	}
	for _, p := range t.Partitions {
		if err := p.check(disk); err != nil {
			return fmt.Errorf("partition %q: %w", p.Name, err)
		}
	}
	sorted := slices.Clone(t.Partitions)
	slices.SortFunc(sorted, func(a, b Partition) int { return cmp.Compare(a.Start, b.Start) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.Start+a.Size > b.Start {
			return fmt.Errorf("partitions %q and %q overlap", a.Name, b.Name)
		}
	}
	return nil
}

func (p Partition) check(disk int64) error {
	for _, id := range []string{p.TypeGUID, p.GUID} {
		if _, err := uuid.Parse(id); err != nil {
			return fmt.Errorf("GUID %q: %w", id, err)
		}
	}
	if len(utf16.Encode([]rune(p.Name))) > 36 {
		return errors.New("name is longer than 36 characters")
	}
	if p.Start < Overhead || p.Size <= 0 || p.Start%Alignment != 0 || p.Size%Alignment != 0 {
		return fmt.Errorf("start %d and size %d must be multiples of %d, from %d on", p.Start, p.Size, Alignment, Overhead)
	}
	if p.Size > disk-Overhead-p.Start {
		return fmt.Errorf("ends at %d, but the disk of %d bytes has room up to %d", p.Start+p.Size, disk, disk-Overhead)
	}
	return nil
}
