//go:build linux

package initrd

import (
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// blockDevice is one line of /sys/class/block, as its uevent file tells it.
type blockDevice struct {
	name string // vda2
	disk string // vda: the folder above in sysfs, empty for a whole disk
	uuid string // GPT partition UUID, lower case
	part string // GPT partition name
}

type blockDevices []blockDevice

// partitions reads what the kernel knows of block devices below sys, and the
// partitions' UUIDs from the tables of the disks below dev (the kernel keeps them
// to itself).
func partitions(sys, dev string) blockDevices {
	var out blockDevices
	tables := map[string]map[int]string{}
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		d := blockDevice{name: entry.Name()}
		dir := filepath.Join(sys, d.name)
		facts := uevent(filepath.Join(dir, "uevent"))
		d.part = facts["PARTNAME"]
		number, err := strconv.Atoi(facts["PARTN"])
		real, linkErr := filepath.EvalSymlinks(dir)
		if facts["DEVTYPE"] == "partition" && err == nil && linkErr == nil {
			d.disk = filepath.Base(filepath.Dir(real))
			if tables[d.disk] == nil {
				tables[d.disk] = partitionUUIDs(filepath.Join(dev, d.disk))
			}
			d.uuid = tables[d.disk][number]
		}
		out = append(out, d)
	}
	return out
}

func uevent(file string) map[string]string {
	raw, _ := os.ReadFile(file) // #nosec G304 -- sysfs; a device that went away has no facts
	out := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[key] = value
	}
	return out
}

// partitionUUIDs reads the partition table of a disk: number → UUID.
func partitionUUIDs(disk string) map[int]string {
	out := map[int]string{}
	f, err := os.Open(disk) // #nosec G304 -- a block device that the kernel named
	if err != nil {
		return out
	}
	defer f.Close() //nolint:errcheck // read only
	for number, e := range entries(f, 0) {
		out[number] = e.uuid
	}
	return out
}

// extent is an entry of a partition table; start and size are in bytes.
type extent struct {
	uuid        string
	start, size int64
}

// entries reads the primary GUID partition table (UEFI specification, section 5.3) of a disk
// that begins at base, with sectors of 512 or 4096 bytes: number → partition.
func entries(disk io.ReaderAt, base int64) map[int]extent {
	out := map[int]extent{}
	for _, sector := range []int64{512, 4096} {
		head := make([]byte, 92)
		if _, err := disk.ReadAt(head, base+sector); err != nil || string(head[:8]) != "EFI PART" {
			continue
		}
		le := binary.LittleEndian
		at, count, size := int64(le.Uint64(head[72:])), min(le.Uint32(head[80:]), 1024), le.Uint32(head[84:]) // #nosec G115 -- a bad table only finds nothing
		if size < 128 || size > 4096 {
			continue
		}
		table := make([]byte, count*size)
		if _, err := disk.ReadAt(table, base+at*sector); err != nil {
			continue
		}
		for i := range int(count) {
			e := table[i*int(size):]
			first, last := int64(le.Uint64(e[32:])), int64(le.Uint64(e[40:])) // #nosec G115 -- as above
			out[i+1] = extent{uuidOf(mixedEndian(e[16:32])), first * sector, (last - first + 1) * sector}
		}
	}
	return out
}

// mixedEndian turns a GUID as it lies on disk into the order of its text.
func mixedEndian(b []byte) []byte {
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}

func (b blockDevices) byUUID(uuid string) string {
	for _, dev := range b {
		if dev.uuid == uuid {
			return "/dev/" + dev.name
		}
	}
	return ""
}

// sibling returns the partition called name on the disk that holds device.
func (b blockDevices) sibling(device, name string) string {
	var disk string
	for _, dev := range b {
		if "/dev/"+dev.name == device {
			disk = dev.disk
		}
	}
	for _, dev := range b {
		if disk != "" && dev.disk == disk && dev.part == name {
			return "/dev/" + dev.name
		}
	}
	return ""
}

// labelled returns the partition called name, on that disk if there is such a disk.
func (b blockDevices) labelled(name, disk string) string {
	here := slices.ContainsFunc(b, func(dev blockDevice) bool { return dev.name == disk })
	for _, dev := range b {
		if dev.part == name && (dev.disk == disk || !here) {
			return "/dev/" + dev.name
		}
	}
	return ""
}

func (b blockDevices) disks() []string {
	var out []string
	for _, dev := range b {
		if dev.disk == "" {
			out = append(out, dev.name)
		}
	}
	return out
}

// uuidOf writes 16 bytes as the specification spells a partition UUID.
func uuidOf(b []byte) string {
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
