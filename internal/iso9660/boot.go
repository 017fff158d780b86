package iso9660

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// File is one that a volume has: its Data, written behind the descriptors, or the Size bytes
// that lie At already.
type File struct {
	Name     string // of the root: A-Z, 0-9 and _, 8 characters, a dot and 3
	Data     []byte
	At, Size int64 // in bytes, whole sectors of 2048
}

// Room is how much of a disk Frame writes to at most, from its beginning; what it leaves
// alone there is the first 32 KiB, where a partition table has its place. Bytes.
const Room = 1 << 20

// maxExtent is how much of a file one entry of a folder tells of: a 32-bit length, of whole sectors.
const maxExtent = 1<<32 - sector

// Where the parts of the frame lie, in sectors.
const (
	primary = 16 + iota
	bootRecord
	terminator
	catalog
	tableL
	tableM
	root
	data
)

// Frame makes an ISO 9660 volume (ECMA-119, level 3) of size bytes of what lies in w, and has
// firmware boot what boot names, an EFI system partition: El Torito 1.0 with the platform
// of the UEFI specification, section 13.3.2.1. w may be a disk with a partition table, too, whose
// partitions begin behind Room: a hybrid.
func Frame(w io.WriterAt, label string, size int64, boot File, files ...File) error {
	if err := check(label, size, append(slices.Clone(files), boot)); err != nil {
		return fmt.Errorf("writing ISO 9660: %w", err)
	}
	next := int64(data)
	blocks := map[int64][]byte{}
	listing := slices.Concat(record("\x00", root*sector, sector, folder), record("\x01", root*sector, sector, folder))
	files = append(slices.Clone(files), boot)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range files {
		if f.Data != nil {
			f.At, f.Size = next*sector, int64(len(f.Data))
			blocks[next] = f.Data
			next += (f.Size + sector - 1) / sector
		}
		for f.Size > maxExtent {
			listing = append(listing, record(f.Name+";1", f.At, maxExtent, more)...)
			f.At, f.Size = f.At+maxExtent, f.Size-maxExtent
		}
		listing = append(listing, record(f.Name+";1", f.At, f.Size, 0)...)
	}
	if len(listing) > sector || next*sector > Room {
		return fmt.Errorf("writing ISO 9660: a folder of %d bytes and files up to %d do not fit in", len(listing), next*sector)
	}
	path := []byte{1, 0, root, 0, 0, 0, 1, 0, 0, 0}
	blocks[primary], blocks[bootRecord], blocks[terminator] = volume(label, size, len(path)), elTorito(), descriptor(255)
	blocks[catalog], blocks[tableL], blocks[tableM], blocks[root] = bootCatalog(boot), path, []byte{1, 0, 0, 0, 0, root, 0, 1, 0, 0}, listing
	for at, b := range blocks {
		if _, err := w.WriteAt(append(b, make([]byte, -len(b)&(sector-1))...), at*sector); err != nil {
			return fmt.Errorf("writing ISO 9660: %w", err)
		}
	}
	return nil
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

func check(label string, size int64, files []File) error {
	if label == "" || len(label) > 32 || strings.Trim(label, letters) != "" || size%sector != 0 || size < Room || size/sector > 1<<32-1 {
		return fmt.Errorf("label %q, %d bytes: want 1 to 32 of A-Z, 0-9 and _, and whole sectors from %d on", label, size, Room)
	}
	for _, f := range files {
		base, ending, _ := strings.Cut(f.Name, ".")
		if base == "" || len(base) > 8 || len(ending) > 3 || strings.Trim(base+ending, letters) != "" {
			return fmt.Errorf("%q is no name there", f.Name)
		}
		if f.Data == nil && (f.At < Room || f.At%sector != 0 || f.Size < 1 || f.At > size-f.Size) {
			return fmt.Errorf("%s: %d bytes at %d do not lie in it", f.Name, f.Size, f.At)
		}
	}
	return nil
}

// both is a number of 32 bits in both orders (7.3.3).
func both(n int64) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(n)), uint32(n)) // #nosec G115 -- checked
}

// both16 is one of 16 bits (7.2.3).
func both16(n byte) []byte { return []byte{n, 0, 0, n} }

// Flags of a file (9.1.6).
const folder, more = 2, 0x80

// record is an entry of a folder (9.1).
func record(name string, at, size int64, flags byte) []byte {
	t := repro.Epoch().UTC()
	b := slices.Concat([]byte{0, 0}, both(at/sector), both(size),
		[]byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0, flags, 0, 0}, // #nosec G115 -- a constant
		both16(1), []byte{byte(len(name))}, []byte(name)) // #nosec G115 -- checked
	b = append(b, make([]byte, len(b)&1)...)
	b[0] = byte(len(b)) // #nosec G115 -- a name is short
	return b
}

// descriptor is a volume descriptor (8.1) that is empty.
func descriptor(kind byte) []byte {
	b := make([]byte, sector)
	copy(b, string(kind)+"CD001\x01")
	b[0] = kind
	return b
}

// volume is the primary volume descriptor (8.4).
func volume(label string, size int64, pathTable int) []byte {
	b := descriptor(1)
	text := func(at, length int, s string) { copy(b[at:at+length], s+strings.Repeat(" ", length)) }
	text(8, 32, "")
	text(40, 32, label)
	copy(b[80:], both(size/sector))
	for _, at := range []int{120, 124} { // one volume, the first
		copy(b[at:], both16(1))
	}
	binary.LittleEndian.PutUint16(b[128:], sector)
	binary.BigEndian.PutUint16(b[130:], sector)
	copy(b[132:], both(int64(pathTable)))
	binary.LittleEndian.PutUint32(b[140:], tableL)
	binary.BigEndian.PutUint32(b[148:], tableM)
	copy(b[156:], record("\x00", root*sector, sector, folder))
	text(190, dates-190, "")
	text(574, 128, "IMGBUILD")
	moment := repro.Epoch().UTC().Format("20060102150405") + "00\x00"
	for i, date := range []string{moment, moment, strings.Repeat("0", 16) + "\x00", moment} { // created, changed, expires: never, effective
		copy(b[dates+i*dateSize:], date)
	}
	b[dates+4*dateSize] = 1 // version
	return b
}

// elTorito is the boot record volume descriptor.
func elTorito() []byte {
	b := descriptor(0)
	copy(b[7:], "EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(b[71:], catalog)
	return b
}

// bootCatalog has the one entry, without emulation. Its length is a number of 16 bits, of 512
// bytes: 0 leaves it to the file system, as the UEFI specification allows.
func bootCatalog(boot File) []byte {
	const efi = 0xef
	b := make([]byte, 64)
	b[0], b[1], b[30], b[31] = 1, efi, 0x55, 0xaa
	copy(b[4:], "imgbuild")
	sum := uint16(0)
	for i := 0; i < 32; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	binary.LittleEndian.PutUint16(b[28:], -sum)
	b[32] = 0x88 // bootable
	if n := boot.Size / 512; n < 1<<16 {
		binary.LittleEndian.PutUint16(b[38:], uint16(n)) // #nosec G115 -- just checked
	}
	binary.LittleEndian.PutUint32(b[40:], uint32(boot.At/sector)) // #nosec G115 -- checked
	return b
}
