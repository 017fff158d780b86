package esp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
)

// Fields of a directory entry, and of the boot sector.
const (
	entrySize     = 32
	attrField     = 11
	longName      = 0x0f // attributes of a part of a long name
	createdTenth  = 13
	createdField  = 14
	accessedField = 18
	clusterHigh   = 20
	modifiedField = 22
	clusterLow    = 26

	volumeIDField = 67
	backupBoot    = 6 // sector of the copy
	rootCluster   = 2
)

// settle sets what the library takes from the clock or leaves zero: the time
// of every entry (it reads the environment instead of an argument) and the
// volume's number. It also points ".." of a folder in the root to cluster 0, as
// the FAT specification wants.
func settle(fsys *fat32.FileSystem, f *os.File, offset int64, dirs []string, opt Options) error {
	for _, boot := range []int64{0, backupBoot * sector} {
		id := binary.LittleEndian.AppendUint32(nil, opt.VolumeID)
		if _, err := f.WriteAt(id, offset+boot+volumeIDField); err != nil {
			return err
		}
	}
	date, clock := fatTime(opt.Epoch)
	for _, dir := range dirs {
		ranges, err := extents(fsys, dir)
		if err != nil {
			return fmt.Errorf("folder %s: %w", dir, err)
		}
		short := map[string]bool{}
		for _, r := range ranges {
			block := make([]byte, r.Length)
			at := offset + int64(r.Offset) // #nosec G115 -- inside the partition
			if _, err := f.ReadAt(block, at); err != nil {
				return fmt.Errorf("folder %s: %w", dir, err)
			}
			if err := settleEntries(block, date, clock, short); err != nil {
				return fmt.Errorf("folder %s: %w", dir, err)
			}
			if _, err := f.WriteAt(block, at); err != nil {
				return fmt.Errorf("folder %s: %w", dir, err)
			}
		}
	}
	return nil
}

func extents(fsys *fat32.FileSystem, dir string) ([]fat12.DiskRange, error) {
	if dir == "." {
		dir = "/"
	}
	handle, err := fsys.OpenFile(dir, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	folder, ok := handle.(*fat12.File)
	if !ok {
		return nil, fmt.Errorf("the library opened it as %T", handle)
	}
	return folder.GetDiskRanges()
}

// settleEntries works on one stretch of a folder; short holds the 8.3 names met
// so far, because the library makes the same one for, say, "a.conf" and "a.con".
func settleEntries(block []byte, date, clock uint16, short map[string]bool) error {
	le := binary.LittleEndian
	for e := block; len(e) >= entrySize && e[0] != 0; e = e[entrySize:] {
		if e[attrField] == longName {
			continue
		}
		name := string(e[:attrField])
		if short[name] {
			return fmt.Errorf("two names have the same short form %q: rename one", name)
		}
		short[name] = true
		e[createdTenth] = 0
		le.PutUint16(e[createdField:], clock)
		le.PutUint16(e[createdField+2:], date)
		le.PutUint16(e[accessedField:], date)
		le.PutUint16(e[modifiedField:], clock)
		le.PutUint16(e[modifiedField+2:], date)
		parent := bytes.HasPrefix(e, []byte("..         "))
		if parent && le.Uint16(e[clusterHigh:]) == 0 && le.Uint16(e[clusterLow:]) == rootCluster {
			le.PutUint16(e[clusterLow:], 0)
		}
	}
	return nil
}

// fatTime is a time as FAT stores it: date, and clock in steps of two seconds.
func fatTime(epoch int64) (date, clock uint16) {
	t := time.Unix(epoch, 0).UTC()
	if first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(first) {
		t = first
	}
	year := min(t.Year()-1980, 127)
	date = uint16(year<<9 | int(t.Month())<<5 | t.Day())        // #nosec G115 -- 16 bits by design
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2) // #nosec G115 -- 16 bits by design
	return date, clock
}
