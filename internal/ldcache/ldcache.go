// Package ldcache writes /etc/ld.so.cache, from which the dynamic linker learns where
// libraries lie, as ldconfig(8) of glibc 2.41 writes it: the new format alone
// (glibc's sysdeps/generic/dl-cache.h). Subfolders for the processor's abilities
// (glibc-hwcaps) are not read: it is an error that a folder has one.
package ldcache

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// Entry is one library: the name that programs ask for, and where it lies.
type Entry struct{ Name, Path string }

// machines are those whose libraries are listed, with the entry's flags.
var machines = map[elf.Machine]int32{elf.EM_X86_64: 0x0303, elf.EM_AARCH64: 0x0a03}

// systemDirs are searched after those of ld.so.conf.
var systemDirs = []string{"/lib", "/usr/lib"}

// Scan lists the libraries of the folders that /etc/ld.so.conf names, and of the
// system's own, in the cache's order. The machine is that of the libraries.
func Scan(t *tree.Tree) (entries []Entry, machine elf.Machine, err error) {
	dirs, err := configured(t, "etc/ld.so.conf", 0)
	if err != nil {
		return nil, 0, err
	}
	seen := map[string]bool{}
	for _, dir := range append(dirs, systemDirs...) {
		real, n, err := t.Resolve(dir)
		if err != nil || !n.Mode.IsDir() || seen[real] {
			continue
		}
		seen[real] = true
		found, m, err := scanDir(t, dir, real)
		if err != nil {
			return nil, 0, err
		}
		if entries = append(entries, found...); m != 0 {
			machine = m
		}
	}
	slices.SortStableFunc(entries, func(a, b Entry) int { return compare(b.Name, a.Name) })
	return entries, machine, nil
}

// configured reads ld.so.conf(5): a folder a line, and "include GLOB".
func configured(t *tree.Tree, file string, depth int) (dirs []string, err error) {
	text, err := t.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || depth > 8 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0] == "hwcap":
		case words[0] == "include" && len(words) > 1:
			for _, p := range t.Paths() {
				if match, _ := path.Match(words[1], "/"+p); !match {
					continue
				}
				more, err := configured(t, p, depth+1)
				if err != nil {
					return nil, err
				}
				dirs = append(dirs, more...)
			}
		default:
			dirs = append(dirs, strings.TrimRight(words[0], "/"))
		}
	}
	return dirs, nil
}

type library struct {
	file   string // its name in the folder
	isLink bool
}

func scanDir(t *tree.Tree, dir, real string) (out []Entry, machine elf.Machine, err error) {
	libs := map[string]library{} // soname → which file gives it
	for _, p := range t.Paths() {
		if path.Dir(p) != real {
			continue
		}
		file := path.Base(p)
		if file == "glibc-hwcaps" {
			return nil, 0, fmt.Errorf("/%s: libraries for some processors only are not supported", p)
		}
		if !strings.HasPrefix(file, "lib") && !strings.HasPrefix(file, "ld-") || !strings.Contains(file, ".so") {
			continue
		}
		n, _ := t.Get(p)
		_, end, err := t.Resolve(p)
		if err != nil || !end.Mode.IsRegular() {
			continue // a link that leads nowhere
		}
		soname, m, err := inspect(end.Content)
		if err != nil {
			return nil, 0, fmt.Errorf("/%s: %w", p, err)
		}
		if m == 0 {
			continue
		}
		machine = m
		if soname == "" {
			soname = file
		}
		l := library{file, n.Mode&fs.ModeSymlink != 0}
		if base := path.Base(file); l.isLink && base != soname && !developer(base, soname) {
			l.isLink = false
		}
		if l.isLink {
			soname = file
		}
		if old, ok := libs[soname]; !ok || !l.isLink && old.isLink || l.isLink == old.isLink && compare(old.file, file) < 0 {
			libs[soname] = l
		}
	}
	for soname := range libs {
		out = append(out, Entry{soname, dir + "/" + soname})
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, machine, nil
}

// developer says whether a name is the one that a linker takes: libx.so of libx.so.1.
func developer(name, soname string) bool {
	return strings.HasSuffix(name, ".so") && strings.HasPrefix(soname, name)
}

// inspect returns a library's DT_SONAME; the machine is 0 of what is no library.
func inspect(c tree.Content) (soname string, machine elf.Machine, err error) {
	r, err := c.Open()
	if err != nil {
		return "", 0, err
	}
	defer r.Close() //nolint:errcheck // read only
	at, ok := r.(io.ReaderAt)
	if !ok {
		data, err := io.ReadAll(r)
		if err != nil {
			return "", 0, err
		}
		at = bytes.NewReader(data)
	}
	f, err := elf.NewFile(at)
	if err != nil || machines[f.Machine] == 0 || f.Class != elf.ELFCLASS64 {
		return "", 0, nil // a linker script, or another machine's
	}
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		return "", 0, nil // not a dynamic one
	}
	if len(names) > 0 {
		soname = names[0]
	}
	return soname, f.Machine, nil
}

// compare orders names as glibc's _dl_cache_libcmp does: numbers by their value.
func compare(a, b string) int {
	for a != "" && b != "" {
		if digit(a[0]) && digit(b[0]) {
			var x, y int
			x, a = number(a)
			y, b = number(b)
			if x != y {
				return x - y
			}
			continue
		}
		switch {
		case digit(a[0]):
			return 1
		case digit(b[0]):
			return -1
		case a[0] != b[0]:
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func number(s string) (n int, rest string) {
	for s != "" && digit(s[0]) {
		n, s = n*10+int(s[0]-'0'), s[1:]
	}
	return n, s
}

const (
	head, entrySize = 48, 24
	extensionMagic  = 0xEAA42174
)

// Write is the cache's bytes. The generator is the name that the cache gives of who wrote it.
func Write(entries []Entry, machine elf.Machine, generator string) []byte {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name, e.Path)
	}
	start := head + entrySize*len(entries)
	strs, offset := table(all)
	le := binary.LittleEndian
	b := append([]byte("glibc-ld.so.cache1.1"), make([]byte, head-20)...)
	le.PutUint32(b[20:], uint32(len(entries))) // #nosec G115 -- as many as fit into a tree
	le.PutUint32(b[24:], uint32(len(strs)))    // #nosec G115 -- likewise
	b[28] = 2                                  // little endian
	for _, e := range entries {
		b = le.AppendUint32(b, uint32(machines[machine]))    // #nosec G115 -- a constant
		b = le.AppendUint32(b, uint32(start+offset[e.Name])) // #nosec G115 -- likewise
		b = le.AppendUint32(b, uint32(start+offset[e.Path])) // #nosec G115 -- likewise
		b = append(b, make([]byte, entrySize-12)...)         // no OS version, no abilities
	}
	b = append(b, strs...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	le.PutUint32(b[32:], uint32(len(b))) // #nosec G115 -- likewise
	const extension = 8 + 16
	at := len(b) + extension
	for _, v := range []int{extensionMagic, 1, 0, 0, at, len(generator)} {
		b = le.AppendUint32(b, uint32(v)) // #nosec G115 -- likewise
	}
	return append(b, generator...)
}

// table joins strings, each closed by a NUL, from the greatest to the least as read
// backwards, so that one that ends another lies in it (glibc's elf/stringtable.c).
func table(all []string) (out []byte, offset map[string]int) {
	backwards := func(s string) string {
		b := []byte(s)
		slices.Reverse(b)
		return string(b)
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(backwards(b), backwards(a)) })
	offset = map[string]int{}
	last := ""
	for _, s := range slices.Compact(all) {
		if last != "" && strings.HasSuffix(last, s) {
			offset[s] = offset[last] + len(last) - len(s)
			continue
		}
		offset[s] = len(out)
		out = append(append(out, s...), 0)
		last = s
	}
	return out, offset
}
