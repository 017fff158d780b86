package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// show tells a whole tree as a map: path → mode and owner, then what it holds.
func show(t testing.TB, tr *Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := tr.Walk(func(p string, n *Node) error {
		text := n.Mode.String()
		if n.UID != 0 || n.GID != 0 {
			text += fmt.Sprintf(" %d:%d", n.UID, n.GID)
		}
		switch {
		case n.Mode&fs.ModeSymlink != 0:
			text = "-> " + n.Link
		case n.Mode&fs.ModeDevice != 0:
			text += fmt.Sprintf(" %#x", n.Rdev)
		case n.Mode.IsRegular():
			data, err := tr.ReadFile(p)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		for _, key := range []string{"security.capability", "user.note"} {
			if v, ok := n.Xattrs[key]; ok {
				text += " " + key + "=" + v
			}
		}
		out[p] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dir(perm fs.FileMode) Node  { return Node{Mode: fs.ModeDir | perm} }
func text(s string) Node         { return Node{Mode: 0o644, Content: Bytes(s)} }
func symlink(target string) Node { return Node{Mode: fs.ModeSymlink | 0o777, Link: target} }
func diff(want, got any) string  { return cmp.Diff(want, got) }
func mustPut(t testing.TB, tr *Tree, p string, n Node) {
	t.Helper()
	if err := tr.Put(p, n); err != nil {
		t.Fatal(err)
	}
}

func TestPut(t *testing.T) {
	tr := New()
	mustPut(t, tr, "/etc/ssh/sshd_config", text("a"))
	mustPut(t, tr, "etc//ssh/./sshd_config", text("b"))
	mustPut(t, tr, "bin", symlink("usr/bin"))
	mustPut(t, tr, "/", dir(0o700))
	mustPut(t, tr, "gone/a/b", text("x"))
	mustPut(t, tr, "gone", symlink("etc")) // takes the place of a folder with all in it
	want := map[string]string{
		".": "drwx------", "bin": "-> usr/bin", "gone": "-> etc", "etc": "drwxr-xr-x", "etc/ssh": "drwxr-xr-x", "etc/ssh/sshd_config": "-rw-r--r-- b",
	}
	if d := diff(want, show(t, tr)); d != "" {
		t.Error(d)
	}
}

func TestPutRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		path string
		node Node
		want string
	}{
		"climbing":          {"a/../../etc/passwd", text("x"), "climbs"},
		"climbing quietly":  {"a/..", text("x"), "climbs"},
		"NUL":               {"a\x00b", text("x"), "NUL"},
		"long":              {strings.Repeat("a/", 2048) + "b", text("x"), "4095"},
		"long name":         {strings.Repeat("n", 256), text("x"), "255"},
		"root as a link":    {".", symlink("/tmp"), "root must be a directory"},
		"root as a file":    {"/", text("x"), "root must be a directory"},
		"root, written odd": {"//.//", text("x"), "root must be a directory"},
		"below a file":      {"file/x", text("x"), `"file" is not a directory`},
		"below a link":      {"link/sub/x", text("x"), `"link" is not a directory`},
	} {
		t.Run(name, func(t *testing.T) {
			tr := New()
			mustPut(t, tr, "file", text("f"))
			mustPut(t, tr, "link", symlink("/etc"))
			before := show(t, tr)
			if err := tr.Put(c.path, c.node); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if d := diff(before, show(t, tr)); d != "" {
				t.Errorf("a refused entry left something behind: %s", d)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	tr := New()
	mustPut(t, tr, "usr/bin/sh", text("sh"))
	mustPut(t, tr, "bin", symlink("usr/bin"))
	mustPut(t, tr, "usr/sbin", symlink("bin"))
	mustPut(t, tr, "a/up", symlink("../../../../usr"))
	mustPut(t, tr, "a/abs", symlink("/a/up/bin/./sh"))
	mustPut(t, tr, "loop1", symlink("loop2"))
	mustPut(t, tr, "loop2", symlink("loop1"))
	mustPut(t, tr, "self", symlink("self/x"))
	for p, want := range map[string]string{
		"": ".", "/": ".", "../..": ".", "bin/sh": "usr/bin/sh", "/usr/sbin/sh": "usr/bin/sh", "a/up": "usr", "a/abs": "usr/bin/sh", "bin/../sbin/sh": "usr/bin/sh",
	} {
		if got, n, err := tr.Resolve(p); err != nil || got != want || n == nil {
			t.Errorf("%q resolves to %q, %v; want %q", p, got, err, want)
		}
	}
	for _, p := range []string{"bin/zsh", "usr/bin/sh/x"} {
		if _, _, err := tr.Resolve(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, want %v", p, err, fs.ErrNotExist)
		}
	}
	for _, p := range []string{"loop1", "self"} {
		if _, _, err := tr.Resolve(p); err == nil || !strings.Contains(err.Error(), "too many") {
			t.Errorf("%q: %v", p, err)
		}
	}
	if _, err := tr.ReadFile("usr"); err == nil {
		t.Error("a folder was read as a file")
	}
}

func TestRemove(t *testing.T) {
	tr := New()
	for _, p := range []string{"a/b/c", "a-b", "ab", "a.b/c"} {
		mustPut(t, tr, p, text(""))
	}
	tr.Remove("/a/")
	tr.Remove("nothing")
	tr.Remove(".")
	tr.Remove("../ab")
	if d := diff([]string{".", "a-b", "a.b", "a.b/c", "ab"}, tr.Paths()); d != "" {
		t.Error(d)
	}
}

func TestPathsAreSortedRootFirst(t *testing.T) {
	tr := New()
	for _, p := range []string{"...", "!first", "-", ".hidden", "..x/y", "z"} {
		mustPut(t, tr, p, text(""))
	}
	if d := diff([]string{".", "!first", "-", "...", "..x", "..x/y", ".hidden", "z"}, tr.Paths()); d != "" {
		t.Error(d)
	}
}

func TestWalkStops(t *testing.T) {
	stop, seen := errors.New("stop"), 0
	tr := New()
	mustPut(t, tr, "a/b", text(""))
	err := tr.Walk(func(p string, _ *Node) error {
		if seen++; p == "a" {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || seen != 2 {
		t.Errorf("error %v after %d entries", err, seen)
	}
}
