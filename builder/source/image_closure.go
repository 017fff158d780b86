package source

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// collector copies files out of a tree with all that they need to run: every
// symbolic link on the way, the ELF interpreter, and the shared libraries, found
// as ld.so finds them in Debian's default folders (no cache, no preload).
type collector struct {
	from, to *tree.Tree
	libs     []string // folders of shared libraries, in ld.so's order
	done     map[string]bool
}

// closure returns a tree that holds the executables must, those of may that are
// there (a folder is taken whole), and what they need.
func closure(base *tree.Tree, processor string, must, may []string) (*tree.Tree, error) {
	names, err := arch.Of(processor)
	if err != nil {
		return nil, err
	}
	tri := names.Triplet
	c := &collector{from: base, to: tree.New(), done: map[string]bool{},
		libs: []string{"/lib/" + tri, "/usr/lib/" + tri, "/lib", "/usr/lib"}}
	for _, p := range must {
		if err := c.add(p); err != nil {
			return nil, fmt.Errorf("taking %s from the base system: %w", p, err)
		}
	}
	for _, p := range may {
		p = strings.ReplaceAll(p, "@TRIPLET@", tri)
		if err := c.addAll(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("taking %s from the base system: %w", p, err)
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} { // a merged /usr, as in the base
		if n, ok := base.Get(link); ok && n.Mode&fs.ModeSymlink != 0 {
			if err := c.to.Put(link, *n); err != nil {
				return nil, err
			}
		}
	}
	return c.to, nil
}

// addAll adds a file, or everything in a folder.
func (c *collector) addAll(p string) error {
	real, n, err := c.from.Resolve(p)
	if err != nil {
		return err
	}
	if !n.Mode.IsDir() {
		return c.add(p)
	}
	for _, q := range c.from.Paths() {
		if path.Dir(q) == real {
			if err := c.add(q); err != nil {
				return fmt.Errorf("%s: %w", q, err)
			}
		}
	}
	return nil
}

// add copies the file at p, the links that lead there, and its libraries.
func (c *collector) add(p string) error {
	real, n, err := c.from.Resolve(p)
	if err != nil {
		return err
	}
	if !n.Mode.IsRegular() {
		return fmt.Errorf("not a regular file but %v", n.Mode.Type())
	}
	if err := c.links(p); err != nil {
		return err
	}
	if c.done[real] {
		return nil
	}
	c.done[real] = true
	if err := c.to.Put(real, *n); err != nil {
		return err
	}
	return c.needs(real)
}

// links copies the symbolic links that are met on the way to p, as tree.Resolve follows them.
func (c *collector) links(p string) error {
	todo, at := strings.Split(strings.Trim(p, "/"), "/"), "."
	for len(todo) > 0 { // Resolve has checked that this ends
		part := todo[0]
		todo = todo[1:]
		if part == "" || part == "." {
			continue
		}
		next := path.Join(at, part)
		if part == ".." {
			next = path.Dir(at)
		}
		n, ok := c.from.Get(next)
		if !ok {
			return fmt.Errorf("%s: %w", next, fs.ErrNotExist)
		}
		if n.Mode&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if err := c.to.Put(next, *n); err != nil {
			return err
		}
		if path.IsAbs(n.Link) {
			at = "."
		}
		todo = append(strings.Split(n.Link, "/"), todo...)
	}
	return nil
}

// needs adds the interpreter and the libraries that an ELF file names; other files need nothing.
func (c *collector) needs(p string) error {
	data, err := c.from.ReadFile("/" + p)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return nil
	}
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	for _, prog := range file.Progs {
		if prog.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, prog.Filesz)
		if _, err := prog.ReadAt(name, 0); err != nil {
			return err
		}
		if err := c.add(strings.TrimRight(string(name), "\x00")); err != nil {
			return fmt.Errorf("its interpreter: %w", err)
		}
	}
	libs, err := file.ImportedLibraries()
	if err != nil {
		return err
	}
	dirs := slices.Concat(runPaths(file, p), c.libs)
	for _, lib := range libs {
		if err := c.library(lib, dirs); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) library(name string, dirs []string) error {
	for _, dir := range dirs {
		at := path.Join(dir, name)
		if _, _, err := c.from.Resolve(at); err == nil {
			return c.add(at)
		}
	}
	return fmt.Errorf("its library %s: %w", name, fs.ErrNotExist)
}

func runPaths(file *elf.File, p string) (dirs []string) {
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		values, _ := file.DynString(tag)
		for _, v := range values {
			for dir := range strings.SplitSeq(v, ":") {
				dirs = append(dirs, strings.ReplaceAll(dir, "$ORIGIN", "/"+path.Dir(p)))
			}
		}
	}
	return dirs
}
