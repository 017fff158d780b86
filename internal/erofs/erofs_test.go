package erofs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lib "github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
)

var options = Options{UUID: repro.UUID("test", "root"), Label: "root", Epoch: repro.DefaultEpoch}

const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// everything holds one entry of each kind and each length that takes its own way into the image.
func everything(t testing.TB) *tree.Tree {
	t.Helper()
	tr := tree.New()
	put := func(p string, n tree.Node) {
		if err := tr.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	put(".", tree.Node{Mode: fs.ModeDir | 0o755})
	put("bin/su", tree.Node{Mode: fs.ModeSetuid | 0o755, Content: tree.Bytes("su")})
	put("bin/wall", tree.Node{Mode: fs.ModeSetgid | 0o755, GID: 5, Content: tree.Bytes("wall")})
	put("bin/ping", tree.Node{Mode: 0o755, Content: tree.Bytes(strings.Repeat("p", 70_000)), Xattrs: map[string]string{"security.capability": capNetRaw}})
	put("tmp", tree.Node{Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	put("lib", tree.Node{Mode: fs.ModeSymlink | 0o777, Link: "usr/lib"})
	put("dev/null", tree.Node{Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Rdev: 1<<8 | 3})
	put("dev/sda", tree.Node{Mode: fs.ModeDevice | 0o660, GID: 6, Rdev: 8 << 8})
	put("dev/pipe", tree.Node{Mode: fs.ModeNamedPipe | 0o600})
	put("home/big-uid", tree.Node{Mode: 0o400, UID: 70_000, GID: 100_000, Content: tree.Bytes("x")})
	put("!first-in-sort-order", tree.Node{Mode: 0o644, Content: tree.Bytes("before the dot")})
	for _, n := range []int{0, 1, 31, 32, 4000, 4032, 4063, 4064, 4065, 4095, 4096, 4097, 8192, 100_000} {
		put(fmt.Sprintf("sizes/%06d", n), tree.Node{Mode: 0o644, Content: tree.Bytes(bytes.Repeat([]byte{byte(n)}, n))})
	}
	for i := range 700 { // a folder of several blocks
		put(fmt.Sprintf("many/a-rather-long-name-to-fill-the-blocks-%04d", i), tree.Node{Mode: 0o644, Content: tree.Bytes("x")})
	}
	put("empty", tree.Node{Mode: fs.ModeDir | 0o700})
	return tr
}

func write(t testing.TB, tr *tree.Tree) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "root.erofs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := Write(t.Context(), f, tr, options)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := f.Stat(); info.Size() != size || size%BlockSize != 0 {
		t.Fatalf("reported %d bytes, file has %d", size, info.Size())
	}
	return name
}

// facts says all of an entry in one line.
func facts(mode fs.FileMode, uid, gid int, link string, rdev uint32, xattrs map[string]string, content []byte) string {
	s := fmt.Sprintf("%v %d:%d", mode, uid, gid)
	switch {
	case mode&fs.ModeSymlink != 0:
		s += " -> " + link
	case mode&fs.ModeDevice != 0:
		s += fmt.Sprintf(" dev %#x", rdev)
	case mode.IsRegular():
		s += fmt.Sprintf(" %d bytes %x", len(content), sha256.Sum256(content))
	}
	if len(xattrs) > 0 {
		s += fmt.Sprintf(" %q", xattrs)
	}
	return s
}

func want(t *testing.T, tr *tree.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	_ = tr.Walk(func(p string, n *tree.Node) error {
		var content []byte
		if n.Mode.IsRegular() {
			content = n.Content.(tree.Bytes)
		}
		out[p] = facts(n.Mode, n.UID, n.GID, n.Link, n.Rdev, n.Xattrs, content)
		return nil
	})
	return out
}

func readBack(t *testing.T, image string) map[string]string {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := lib.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.ModTime().Unix() != repro.DefaultEpoch {
			t.Errorf("%s: time %v", p, info.ModTime())
		}
		var content []byte
		var link string
		switch {
		case info.Mode().IsRegular():
			content, err = fs.ReadFile(fsys, p)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err = fs.ReadLink(fsys, p)
		}
		st := info.Sys().(*lib.Stat) // the reader's own Mode() has no setuid, setgid and sticky bits
		out[p] = facts(st.Mode, int(st.UID), int(st.GID), link, st.Rdev, st.Xattrs, content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	tr := everything(t)
	if diff := cmp.Diff(want(t, tr), readBack(t, write(t, tr))); diff != "" {
		t.Errorf("tree and image differ (-tree +image):\n%s", diff)
	}
}

// TestLater looks where the writer says that files lie, and leaves some of them out: all
// else is as it was.
func TestLater(t *testing.T) {
	tr, files := everything(t), 0
	put := tree.Node{Mode: 0o644, Content: tree.Bytes(bytes.Repeat([]byte("0123456789"), stretch/9))}
	for _, name := range []string{"sizes/more than a stretch", "zz/the last of all"} {
		if err := tr.Put(name, put); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Walk(func(_ string, n *tree.Node) error {
		if n.Mode.IsRegular() && n.Content.Size() >= BlockSize {
			files++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	opt := options
	opt.At = 3 * BlockSize
	disk := func(later func(at int64, c tree.Content) bool) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		opt.Later = later
		if _, err := Write(t.Context(), f, tr, opt); err != nil {
			t.Fatal(err)
		}
		return f
	}
	bytesOf := func(f *os.File) []byte {
		all, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	want := bytesOf(disk(nil))
	for _, n := range []int{1, 2} { // all are left out, or every other one
		lie, left := map[int64]tree.Bytes{}, map[int64]bool{}
		f := disk(func(at int64, c tree.Content) bool {
			lie[at], _ = c.(tree.Bytes)
			left[at] = len(lie)%n == 0
			return left[at]
		})
		for at, text := range lie {
			got := make([]byte, (len(text)+BlockSize-1)/BlockSize*BlockSize)
			_, err := f.ReadAt(got, opt.At+at)
			if left[at] && err == nil {
				if len(bytes.Trim(got, "\x00")) > 0 {
					t.Errorf("the %d bytes at %d are not left out", len(text), at)
				}
				_, err = f.WriteAt(text, opt.At+at)
				copy(got, text)
			}
			if err != nil || at%BlockSize != 0 || !bytes.Equal(got[:len(text)], text) || len(bytes.Trim(got[len(text):], "\x00")) > 0 {
				t.Errorf("%d bytes do not lie at %d: %v", len(text), at, err)
			}
		}
		if len(lie) != files || files < 5 {
			t.Errorf("%d files of a block and more lie on the image, of %d", len(lie), files)
		}
		if !bytes.Equal(bytesOf(f), want) {
			t.Errorf("with each of %d left out and written later, the image is another one", n)
		}
	}
}

func TestSameBytesTwice(t *testing.T) {
	a, err := os.ReadFile(write(t, everything(t)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(write(t, everything(t)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two runs differ")
	}
}

func TestEmptyTree(t *testing.T) {
	if got := readBack(t, write(t, tree.New())); len(got) != 1 {
		t.Errorf("entries %v", got)
	}
}

func TestFsck(t *testing.T) {
	if _, err := run.Look("fsck.erofs"); err != nil {
		t.Skip("fsck.erofs is not installed (package erofs-utils)")
	}
	image := write(t, everything(t))
	if err := run.Run(t.Context(), run.Cmd{Name: "fsck.erofs", Args: []string{image}}); err != nil {
		t.Fatal(err)
	}
	out, err := run.Output(t.Context(), run.Cmd{Name: "dump.erofs", Args: []string{"-s", image}})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{options.UUID.String(), "sb_csum"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("dump.erofs does not show %q:\n%s", word, out)
		}
	}
}

type lying struct {
	tree.Bytes
	size int64
}

func (l lying) Size() int64 { return l.size }

type broken struct{}

func (broken) Open() (io.ReadCloser, error) { return nil, fs.ErrPermission }
func (broken) Size() int64                  { return 5 }

func TestRefused(t *testing.T) {
	cases := map[string]struct {
		node tree.Node
		want string
	}{
		"short inline":  {tree.Node{Content: lying{tree.Bytes("abc"), 4}}, "1 bytes short"},
		"short":         {tree.Node{Content: lying{tree.Bytes("abc"), 9000}}, "8997 bytes short"},
		"long":          {tree.Node{Content: lying{tree.Bytes("abc"), 2}}, "longer than the 2 bytes"},
		"no content":    {tree.Node{Mode: 0o644}, "without content"},
		"unreadable":    {tree.Node{Content: broken{}}, "opening the content of f"},
		"empty link":    {tree.Node{Mode: fs.ModeSymlink}, "target"},
		"huge xattr":    {tree.Node{Content: tree.Bytes(""), Xattrs: map[string]string{"user.x": strings.Repeat("x", 3000)}}, "at most"},
		"bad owner":     {tree.Node{Content: tree.Bytes(""), UID: -1}, "out of range"},
		"strange types": {tree.Node{Mode: fs.ModeIrregular}, "cannot be stored"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tr := tree.New()
			if err := tr.Put("f", c.node); err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := Write(t.Context(), f, tr, options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Write(ctx, f, everything(t), options); err == nil {
		t.Error("a cancelled write succeeded")
	}
}
