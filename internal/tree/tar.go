package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Section is content that lies in a file, such as an uncompressed tar archive.
type Section struct {
	File   string
	Offset int64
	Length int64
}

var _ Content = Section{}

// File is all of the file at path, as it is now.
func File(path string) (Section, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Section{}, err
	}
	return Section{File: path, Length: info.Size()}, nil
}

// Open implements Content; what it returns is an io.ReaderAt, too.
func (s Section) Open() (io.ReadCloser, error) {
	f, err := os.Open(s.File)
	if err != nil {
		return nil, err
	}
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(f, s.Offset, s.Length), f}, nil
}

// Size implements Content.
func (s Section) Size() int64 { return s.Length }

// maxEntries bounds what one archive may hold.
const maxEntries = 2_000_000

// ApplyTar lays the uncompressed tar archive in file over the tree, as one layer
// of the OCI image specification: ".wh." names take entries of lower layers
// away, and a later entry replaces an earlier one. Content stays in the file.
func (t *Tree) ApplyTar(file string) error {
	l := &layer{tree: t, file: file, fresh: map[string]bool{}}
	return l.read()
}

// layer is one archive on its way into the tree; fresh holds the paths that it
// brought itself, which its own opaque markers must not take away. The other two,
// where they are there, take what it hides of lower layers, and where it hides all.
type layer struct {
	tree           *Tree
	file           string
	fresh          map[string]bool
	hidden, opaque map[string]bool
}

func (l *layer) read() error {
	f, err := os.Open(l.file) // #nosec G304 -- a file of the content store
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	r := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", l.file, err)
		}
		if n > maxEntries {
			return fmt.Errorf("reading %s: more than %d entries", l.file, maxEntries)
		}
		offset, err := f.Seek(0, io.SeekCurrent) // the reader does not read ahead of an entry's data
		if err != nil {
			return err
		}
		if err := l.apply(h, offset); err != nil {
			return fmt.Errorf("archive entry %q: %w", h.Name, err)
		}
	}
}

func (l *layer) apply(h *tar.Header, offset int64) error {
	name, err := l.place(h.Name)
	if err != nil {
		return err
	}
	if hide, ok := strings.CutPrefix(path.Base(name), ".wh."); ok {
		return l.whiteout(path.Dir(name), hide)
	}
	node, err := l.node(h, offset)
	if err != nil || node == nil {
		return err
	}
	if old, ok := l.tree.Get(name); ok && old.Mode.IsDir() && node.Mode.IsDir() {
		*old = *node
	} else if err := l.tree.Put(name, *node); err != nil {
		return err
	}
	for ; !l.fresh[name]; name = path.Dir(name) { // the folders above hold something fresh, so they stay
		l.fresh[name] = true
	}
	return nil
}

// place cleans an entry's name and follows links in the folders that hold it,
// so that "bin/x" lands in usr/bin where bin is a link.
func (l *layer) place(name string) (string, error) {
	clean, err := Clean(name)
	if err != nil || clean == "." {
		return clean, err
	}
	dir := path.Dir(clean)
	if n, ok := l.tree.Get(dir); ok && n.Mode.IsDir() || dir == "." {
		return clean, nil
	}
	real, n, err := l.tree.Resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return clean, nil
	}
	if err != nil {
		return "", err
	}
	if !n.Mode.IsDir() {
		return "", fmt.Errorf("%s is not a directory", dir)
	}
	return path.Join(real, path.Base(clean)), nil
}

func (l *layer) whiteout(dir, hide string) error {
	switch {
	case hide == ".wh..opq":
		l.clear(dir)
		if l.opaque != nil {
			l.opaque[dir] = true
		}
	case hide == "" || hide == "." || hide == "..":
		return errors.New("whiteout of nothing or of a parent")
	case strings.HasPrefix(hide, ".wh."):
		// aufs bookkeeping such as .wh..wh.plnk
	default:
		hidden := path.Join(dir, hide)
		l.clear(hidden)
		if l.hidden != nil {
			l.hidden[hidden] = true
		}
		if !l.fresh[hidden] {
			delete(l.tree.nodes, hidden)
		}
	}
	return nil
}

// clear takes away what lower layers put below dir.
func (l *layer) clear(dir string) {
	for p := range l.tree.nodes {
		if p != "." && (dir == "." || strings.HasPrefix(p, dir+"/")) && !l.fresh[p] {
			delete(l.tree.nodes, p)
		}
	}
}

func (l *layer) node(h *tar.Header, offset int64) (*Node, error) {
	// The type is the entry's own; type bits in its mode could say otherwise.
	n := &Node{Mode: h.FileInfo().Mode() &^ fs.ModeType, UID: h.Uid, GID: h.Gid, Xattrs: xattrs(h)}
	if err := forged(n.Xattrs); err != nil {
		return nil, err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		n.Mode |= fs.ModeDir
	case tar.TypeReg:
		if sparse(h) {
			return nil, errors.New("sparse files are not supported: write the archive without them")
		}
		n.Content = Section{l.file, offset, h.Size}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > maxPath {
			return nil, fmt.Errorf("the link's target has %d bytes, must have 1 to %d", len(h.Linkname), maxPath)
		}
		n.Link, n.Mode = h.Linkname, fs.ModeSymlink|0o777
	case tar.TypeLink:
		target, err := l.place(h.Linkname)
		if err != nil {
			return nil, err
		}
		old, ok := l.tree.Get(target)
		if !ok || old.Mode.IsDir() {
			return nil, fmt.Errorf("hard link to %q, which is not a file of the archive", h.Linkname)
		}
		same := *old
		return &same, nil
	case tar.TypeFifo:
		n.Mode |= fs.ModeNamedPipe
	case tar.TypeChar, tar.TypeBlock:
		n.Mode |= fs.ModeDevice
		if h.Typeflag == tar.TypeChar {
			n.Mode |= fs.ModeCharDevice
		}
		n.Rdev = uint32(h.Devminor&0xff | h.Devmajor<<8 | (h.Devminor&^0xff)<<12) // #nosec G115 -- Linux new_encode_dev
	case tar.TypeXGlobalHeader:
		return nil, nil
	default:
		return nil, fmt.Errorf("unsupported archive entry type %q", h.Typeflag)
	}
	return n, nil
}

// sparse says whether the entry's data is a map of holes (GNU's PAX keys), so
// that it does not lie in the archive as it is.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = value
		}
	}
	return out
}
