package source

import (
	"debug/elf"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// hostFile is a file of this machine as content.
type hostFile struct {
	path string
	size int64
}

func (h hostFile) Open() (io.ReadCloser, error) { return os.Open(h.path) }
func (h hostFile) Size() int64                  { return h.size }

// readHost makes a tree of folders (not below them) and links of this machine.
func readHost(t *testing.T, paths ...string) *tree.Tree {
	t.Helper()
	out := tree.New()
	put := func(p string) {
		info, err := os.Lstat(p)
		if err != nil {
			return
		}
		n := tree.Node{Mode: info.Mode()}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			n.Link, _ = os.Readlink(p)
		case info.Mode().IsRegular():
			n.Content = hostFile{p, info.Size()}
		case !info.IsDir():
			return
		}
		if err := out.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range paths {
		put(p)
		if info, err := os.Lstat(p); err != nil || !info.IsDir() {
			continue
		}
		entries, err := os.ReadDir(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			put(filepath.Join(p, e.Name()))
		}
	}
	return out
}

func triplet(t *testing.T) string {
	t.Helper()
	names, err := arch.Of(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	return names.Triplet
}

// TestClosureHasWhatLddNames holds the closure of this machine's own nft and cp
// against ldd, and runs cp from the copy with the copy's own loader.
func TestClosureHasWhatLddNames(t *testing.T) {
	lib := "/usr/lib/" + triplet(t)
	base := readHost(t, "/usr/bin", "/usr/sbin", lib, "/usr/lib64", "/lib64", "/lib", "/bin", "/sbin")
	for _, tool := range []string{"/usr/bin/cp", "/usr/bin/tar", "/usr/sbin/nft"} {
		out, err := run.Output(t.Context(), run.Cmd{Name: "ldd", Args: []string{tool}})
		if err != nil {
			t.Logf("%s: not here (%v)", tool, err)
			continue
		}
		got, err := closure(base, runtime.GOARCH, []string{tool}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			if i := slices.IndexFunc(fields, filepath.IsAbs); i >= 0 {
				if _, _, err := got.Resolve(fields[i]); err != nil {
					t.Errorf("%s: the closure lacks what ldd names: %v", tool, err)
				}
			}
		}
	}
	copied, err := closure(base, runtime.GOARCH, []string{"/usr/bin/cp"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	unpack(t, copied, dir)
	loader, _, err := copied.Resolve(loaderOf(t, "/usr/bin/cp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Run(t.Context(), run.Cmd{Name: filepath.Join(dir, loader), Args: []string{"--inhibit-cache", "--library-path", dir + lib, dir + "/usr/bin/cp", "--version"}}); err != nil {
		t.Errorf("running cp from the copy: %v", err)
	}
}

func loaderOf(t *testing.T, file string) string {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	text, err := f.Section(".interp").Data()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(text), "\x00")
}

func unpack(t *testing.T, from *tree.Tree, dir string) {
	t.Helper()
	err := from.Walk(func(p string, n *tree.Node) error {
		at := filepath.Join(dir, p)
		switch {
		case n.Mode.IsDir():
			return os.MkdirAll(at, 0o755)
		case n.Mode&fs.ModeSymlink != 0:
			return os.Symlink(n.Link, at)
		}
		text, err := from.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(at, text, n.Mode.Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestClosureRefusesWhatCannotRun(t *testing.T) {
	_, err := closure(tree.New(), "amd64", []string{"/usr/sbin/nft"}, nil)
	fails(t, err, "taking /usr/sbin/nft from the base system")
	full := readHost(t, "/usr/bin")
	_, err = closure(full, runtime.GOARCH, []string{"/usr/bin/cp"}, nil) // no libraries anywhere
	fails(t, err, "its ")
}
