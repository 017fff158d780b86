package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/imgbuild/imgbuild/internal/diskview"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// maxEntries bounds what Read takes for the files of a boot partition, and how deep they lie.
const maxEntries, maxDepth = 4096, 16

// labelField is where the boot sector has the label, of 11 characters.
const labelField = 71

// Read returns the files of an EFI system partition and what Write needs, beside them,
// to make the same one again. Contents are read from the partition when they are opened.
func Read(part *io.SectionReader) (map[string]tree.Content, Options, error) {
	opt, err := readOptions(part)
	if err != nil {
		return nil, opt, fmt.Errorf("reading the EFI system partition: %w", err)
	}
	fsys, err := fat32.Read(diskview.View{SectionReader: part}, part.Size(), 0, sector)
	if err != nil {
		return nil, opt, fmt.Errorf("reading the EFI system partition: %w", err)
	}
	w := walker{fsys: fsys, part: part, files: map[string]tree.Content{}}
	if err := w.folder(".", 0); err != nil {
		return nil, opt, fmt.Errorf("reading the EFI system partition: %w", err)
	}
	opt.Epoch, opt.Folders = w.newest, w.empty
	return w.files, opt, nil
}

// readOptions reads the boot sector.
func readOptions(part *io.SectionReader) (opt Options, err error) {
	head := make([]byte, sector)
	if _, err := part.ReadAt(head, 0); err != nil {
		return opt, err
	}
	if !bytes.HasPrefix(head[82:], []byte("FAT32")) {
		return opt, errors.New("it is no FAT32")
	}
	opt.VolumeID = binary.LittleEndian.Uint32(head[volumeIDField:])
	opt.Label = strings.TrimRight(string(head[labelField:labelField+11]), " ")
	return opt, nil
}

// walker collects what lies in a file system.
type walker struct {
	fsys    *fat32.FileSystem
	part    *io.SectionReader
	files   map[string]tree.Content
	empty   []string
	entries int
	newest  int64 // seconds since 1970
}

func (w *walker) folder(dir string, depth int) error {
	entries, err := w.fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	if w.entries += len(entries); w.entries > maxEntries || depth > maxDepth {
		return errors.New("it has more in it than a boot partition")
	}
	if len(entries) == 0 && dir != "." {
		w.empty = append(w.empty, dir)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		w.newest = max(w.newest, info.ModTime().Unix())
		if e.IsDir() {
			if err := w.folder(name, depth+1); err != nil {
				return err
			}
			continue
		}
		if info.Size() > w.part.Size() {
			return fmt.Errorf("%s: %d bytes do not fit in it", name, info.Size())
		}
		w.files[name] = content{w.fsys, w.part, name, info.Size()}
	}
	slices.Sort(w.empty)
	return nil
}

// content is a file of a FAT file system.
type content struct {
	fsys *fat32.FileSystem
	part *io.SectionReader
	name string
	size int64
}

var _ tree.Content = content{}

// Open implements tree.Content. The library would read cluster by cluster; here each run of
// them is read as one.
func (c content) Open() (io.ReadCloser, error) {
	ranges, err := extents(c.fsys, c.name)
	if err != nil {
		return nil, err
	}
	var runs []io.Reader
	left := c.size
	for _, r := range ranges {
		n := min(left, int64(r.Length))                                      // #nosec G115 -- at most the partition
		runs = append(runs, io.NewSectionReader(c.part, int64(r.Offset), n)) // #nosec G115 -- as above
		left -= n
	}
	if left > 0 {
		return nil, fmt.Errorf("%s: %d bytes are not there", c.name, left)
	}
	return io.NopCloser(io.MultiReader(runs...)), nil
}

func (c content) Size() int64 { return c.size }
