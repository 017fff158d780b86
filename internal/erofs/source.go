package erofs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// maxXattrs bounds the extended attributes of one entry, so that they and the
// inode stay inside one block.
const maxXattrs = 2048

// source shows a tree as the fs.FS that the library copies from. Files open
// their content at the first read, so that no more than one is open at a time.
type source struct {
	ctx     context.Context //nolint:containedctx // fs.FS has no other way to pass it
	entries map[string]*entry
	begins  func(tree.Content) (later bool) // hears of each file's content before it is read, or that it is not
}

var (
	_ fs.ReadDirFS  = (*source)(nil)
	_ fs.FileInfo   = (*entry)(nil)
	_ fs.DirEntry   = (*entry)(nil)
	_ fs.File       = (*file)(nil)
	_ io.ReadCloser = (*file)(nil)
)

// entry is one node with what the parent's listing and stat(2) say of it.
type entry struct {
	name     string
	node     *tree.Node
	epoch    int64
	links    int
	children []fs.DirEntry
}

func newSource(ctx context.Context, t *tree.Tree, epoch int64) (*source, error) {
	s := &source{ctx: ctx, entries: map[string]*entry{}}
	err := t.Walk(func(p string, n *tree.Node) error {
		if err := check(n); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		e := &entry{name: path.Base(p), node: n, epoch: epoch, links: 1}
		if n.Mode.IsDir() {
			e.links = 2
		}
		s.entries[p] = e
		if p == "." {
			return nil
		}
		parent, ok := s.entries[path.Dir(p)]
		if !ok {
			return fmt.Errorf("%s: its folder is not in the tree", p)
		}
		parent.children = append(parent.children, e) // Walk is sorted, and so is each listing
		if n.Mode.IsDir() {
			parent.links++
		}
		return nil
	})
	return s, err
}

func check(n *tree.Node) error {
	switch n.Mode.Type() {
	case 0:
		if n.Content == nil {
			return errors.New("a regular file without content")
		}
	case fs.ModeSymlink:
		if n.Link == "" || len(n.Link) >= BlockSize {
			return fmt.Errorf("a symbolic link's target must have 1 to %d bytes, has %d", BlockSize-1, len(n.Link))
		}
	case fs.ModeDir, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice, fs.ModeNamedPipe, fs.ModeSocket:
	default:
		return fmt.Errorf("file type %v cannot be stored", n.Mode.Type())
	}
	if n.UID < 0 || n.GID < 0 || int64(n.UID) > 1<<32-2 || int64(n.GID) > 1<<32-2 {
		return fmt.Errorf("owner %d:%d is out of range", n.UID, n.GID)
	}
	total := 0
	for name, value := range n.Xattrs {
		total += len(name) + len(value) + 8
	}
	if total > maxXattrs {
		return fmt.Errorf("extended attributes of %d bytes, at most %d can be stored", total, maxXattrs)
	}
	return nil
}

// Open implements fs.FS.
func (s *source) Open(name string) (fs.File, error) {
	e, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	f := &file{src: s, path: name, entry: e}
	if e.node.Content != nil {
		f.left = e.node.Content.Size()
	}
	return f, nil
}

// ReadDir implements fs.ReadDirFS.
func (s *source) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	return e.children, nil
}

// Stat implements fs.StatFS.
func (s *source) Stat(name string) (fs.FileInfo, error) { return s.find("stat", name) }

// ReadLink is what the library asks for a link's target.
func (s *source) ReadLink(name string) (string, error) {
	e, err := s.find("readlink", name)
	if err != nil {
		return "", err
	}
	return e.node.Link, nil
}

func (s *source) find(op, name string) (*entry, error) {
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	e, ok := s.entries[name]
	if !ok {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return e, nil
}

func (e *entry) Name() string               { return e.name }
func (e *entry) IsDir() bool                { return e.node.Mode.IsDir() }
func (e *entry) Type() fs.FileMode          { return e.node.Mode.Type() }
func (e *entry) Info() (fs.FileInfo, error) { return e, nil }
func (e *entry) ModTime() time.Time         { return time.Unix(e.epoch, 0).UTC() }

func (e *entry) Mode() fs.FileMode {
	if e.node.Mode&fs.ModeSymlink != 0 {
		return fs.ModeSymlink | 0o777 // what Linux shows for every link
	}
	return e.node.Mode
}

func (e *entry) Size() int64 {
	switch {
	case e.node.Mode.IsRegular():
		return e.node.Content.Size()
	case e.node.Mode&fs.ModeSymlink != 0:
		return int64(len(e.node.Link))
	}
	return 0
}

// Sys hands over what io/fs has no words for.
func (e *entry) Sys() any {
	return &erofs.Stat{
		UID: uint32(e.node.UID), GID: uint32(e.node.GID), // #nosec G115 -- checked
		Mtime: uint64(e.epoch), Nlink: e.links, Rdev: e.node.Rdev, Xattrs: e.node.Xattrs, // #nosec G115 -- checked
	}
}

// file reads exactly as many bytes as its entry promised.
type file struct {
	src   *source
	path  string
	entry *entry
	r     io.ReadCloser
	left  int64
	later bool
}

func (f *file) Stat() (fs.FileInfo, error) { return f.entry, nil }

// Read reports content of the wrong length as an error; the library would
// otherwise write a damaged image.
func (f *file) Read(p []byte) (int, error) {
	if err := f.src.ctx.Err(); err != nil {
		return 0, err
	}
	if f.left == 0 {
		return 0, io.EOF
	}
	if f.r == nil && !f.later {
		f.later = f.src.begins(f.entry.node.Content)
	}
	if f.later { // whatever is in p, nobody writes it
		n := min(int64(len(p)), f.left)
		f.left -= n
		return int(n), nil
	}
	if f.r == nil {
		r, err := f.entry.node.Content.Open()
		if err != nil {
			return 0, fmt.Errorf("opening the content of %s: %w", f.path, err)
		}
		f.r = r
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && f.left > 0:
		return n, fmt.Errorf("content of %s: %d bytes short of the size it promised: %w", f.path, f.left, io.ErrUnexpectedEOF)
	case err != nil && !errors.Is(err, io.EOF):
		return n, fmt.Errorf("reading the content of %s: %w", f.path, err)
	case f.left == 0:
		return n, f.expectEnd()
	}
	return n, nil
}

func (f *file) expectEnd() error {
	n, err := io.ReadFull(f.r, make([]byte, 1))
	if n > 0 {
		return fmt.Errorf("content of %s: longer than the %d bytes it promised", f.path, f.entry.Size())
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the content of %s: %w", f.path, err)
	}
	return nil
}

// Close implements fs.File.
func (f *file) Close() error {
	if f.r == nil {
		return nil
	}
	return f.r.Close()
}
