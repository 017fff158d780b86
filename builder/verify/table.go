package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// Partition is one entry of the table; Start and Size are in bytes.
type Partition struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	UUID  string `json:"uuid"`
	Start int64  `json:"start"`
	Size  int64  `json:"size"`
}

// Type GUIDs that all processors share.
const (
	typeESP  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeBIOS = "21686148-6449-6e6f-744e-656564454649"
	typeData = "0fc63daf-8483-4772-8e79-3d69d8477de4" // any
)

const sectorSize = 512

// readTable reads the primary table and holds it against the backup (UEFI
// specification, section 5.3).
func readTable(disk io.ReaderAt, size int64) ([]Partition, error) {
	first, entries, err := readHeader(disk, sectorSize)
	if err != nil {
		return nil, fmt.Errorf("primary partition table: %w", err)
	}
	_, backup, err := readHeader(disk, size-sectorSize)
	if err != nil {
		return nil, fmt.Errorf("backup partition table, at the end of the disk: %w", err)
	}
	if string(entries) != string(backup) {
		return nil, errors.New("the primary and the backup partition table differ")
	}
	out := partitions(entries, int(binary.LittleEndian.Uint32(first[84:])))
	for _, p := range out {
		if p.Start < 0 || p.Size <= 0 || p.Start+p.Size > size-sectorSize {
			return nil, fmt.Errorf("partition %s reaches beyond the disk", p.Name)
		}
	}
	return out, nil
}

// partitions are a table's, of step bytes each.
func partitions(entries []byte, step int) (out []Partition) {
	for at := 0; at+step <= len(entries); at += step {
		if p, ok := entry(entries[at:]); ok {
			out = append(out, p)
		}
	}
	return out
}

func readHeader(disk io.ReaderAt, at int64) (header, entries []byte, err error) {
	h := make([]byte, sectorSize)
	if err := readAt(disk, h, at); err != nil {
		return nil, nil, err
	}
	le := binary.LittleEndian
	length := le.Uint32(h[12:])
	if string(h[:8]) != "EFI PART" || length < 92 || length > sectorSize {
		return nil, nil, errors.New("no GPT header")
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, nil, errors.New("the header's checksum is wrong")
	}
	count, step := le.Uint32(h[80:]), le.Uint32(h[84:])
	if step < 128 || count > 1024 || step > 4096 {
		return nil, nil, fmt.Errorf("implausible table of %d entries of %d bytes", count, step)
	}
	e := make([]byte, count*step)
	if err := readAt(disk, e, int64(le.Uint64(h[72:]))*sectorSize); err != nil { //nolint:gosec // a wrong number only fails to read
		return nil, nil, err
	}
	if crc32.ChecksumIEEE(e) != le.Uint32(h[88:]) {
		return nil, nil, errors.New("the entries' checksum is wrong")
	}
	return h, e, nil
}

// readAt fills buf; an end of file right after it is no error (io.ReaderAt leaves
// that to the reader).
func readAt(r io.ReaderAt, buf []byte, at int64) error {
	if n, err := r.ReadAt(buf, at); n < len(buf) {
		return err
	}
	return nil
}

func entry(e []byte) (Partition, bool) {
	le := binary.LittleEndian
	kind := guid(e[:16])
	if kind == "00000000-0000-0000-0000-000000000000" {
		return Partition{}, false
	}
	name := make([]uint16, 36)
	for i := range name {
		name[i] = le.Uint16(e[56+2*i:])
	}
	const most = 1 << 53                         // sectors: beyond any disk, as the caller finds, and still countable in bytes
	start := int64(min(le.Uint64(e[32:]), most)) // #nosec G115 -- bounded
	end := int64(min(le.Uint64(e[40:]), most))   // #nosec G115 -- bounded
	return Partition{
		Name: strings.TrimRight(string(utf16.Decode(name)), "\x00"), Type: kind, UUID: guid(e[16:32]),
		Start: start * sectorSize, Size: (end - start + 1) * sectorSize,
	}, true
}

// guid spells 16 bytes as they lie on disk: the first three groups little-endian.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func dashed(h string) string {
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func find(parts []Partition, kind string) *Partition {
	for i := range parts {
		if parts[i].Type == kind {
			return &parts[i]
		}
	}
	return nil
}
