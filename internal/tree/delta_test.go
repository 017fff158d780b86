package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What WriteDelta writes turns the one tree into the other.
func TestWriteDelta(t *testing.T) {
	write := func(fill func(io.Writer) error) string {
		file := filepath.Join(t.TempDir(), "layer.tar")
		f, err := os.Create(file)
		if err == nil {
			err = errors.Join(fill(f), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	text := func(s string) Node { return Node{Mode: 0o644, Content: Bytes(s)} }
	first := New()
	for name, n := range map[string]Node{"etc/same": text("1"), "etc/other": text("1"), "etc/mode": text("1"), "gone/a/b": text("1"), "etc/gone": text("1"), "dir/x": text("1")} {
		if err := first.Put(name, n); err != nil {
			t.Fatal(err)
		}
	}
	below, want := New(), New()
	base := write(first.WriteTar)
	if err := errors.Join(below.ApplyTar(base), want.ApplyTar(base)); err != nil {
		t.Fatal(err)
	}
	want.Remove("gone")
	want.Remove("etc/gone")
	for name, n := range map[string]Node{"etc/other": text("2"), "new/file": text("3"), "dir": {Mode: fs.ModeSymlink | 0o777, Link: "etc"}} {
		if err := want.Put(name, n); err != nil {
			t.Fatal(err)
		}
	}
	n, _ := want.Get("etc/mode")
	n.Mode, n.UID, n.Xattrs = 0o4755, 7, map[string]string{"user.x": "y"}
	delta := write(func(w io.Writer) error { return want.WriteDelta(w, below) })
	if data, _ := os.ReadFile(delta); bytes.Contains(data, []byte("etc/same")) {
		t.Error("what is the same is in the delta, too")
	}
	if err := below.ApplyTar(delta); err != nil {
		t.Fatal(err)
	}
	all := func(u *Tree) (out []string) {
		_ = u.Walk(func(p string, n *Node) error {
			data, _ := u.ReadFile(p)
			out = append(out, fmt.Sprint(p, n.Mode, n.UID, n.Link, n.Xattrs, string(data)))
			return nil
		})
		return out
	}
	if got, want := all(below), all(want); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
