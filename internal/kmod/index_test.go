package kmod

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

// some has a key that another begins with, one with two values, and none in common.
var some = []Entry{
	{"ext4", 7, "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz"}, {"jbd2", 3, "kernel/fs/jbd2/jbd2.ko.xz:"},
	{"ext", 9, "kernel/ext.ko:"}, {"ext", 10, "kernel/other.ko:"},
}

// TestDepmod takes an index that depmod of kmod 34 made apart, and makes it again.
func TestDepmod(t *testing.T) {
	want, err := os.ReadFile("testdata/modules.builtin.alias.bin")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := Read(want)
	if err != nil || len(entries) != 152 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if got, err := Write(entries); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d, %v", len(got), len(want), err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, entries := range [][]Entry{nil, some[:1], some} {
		index, err := Write(entries)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read(index)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Write(got)
		if err != nil || len(got) != len(entries) || !bytes.Equal(again, index) {
			t.Errorf("%v, %v", got, err)
		}
	}
	index, _ := Write(some)
	got, _ := Read(index)
	if diff := cmp.Diff([]Entry{some[2], some[3], some[0], some[1]}, got); diff != "" {
		t.Error(diff)
	}
}

// TestModprobe has kmod's own program look things up in what was written.
func TestModprobe(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "lib/modules/1.0")
	for _, file := range []string{"kernel/fs/jbd2/jbd2.ko.xz", "kernel/fs/ext4/ext4.ko.xz"} { // a dependency without a file is passed over
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755), os.WriteFile(filepath.Join(dir, file), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, entries := range map[string][]Entry{
		"modules.dep.bin":     some[:2],
		"modules.alias.bin":   {{"pci:v00001AF4d*sv*sd*bc*sc*i*", 1, "jbd2"}, {"fs_ext[2-4]", 7, "ext4"}},
		"modules.symbols.bin": nil, "modules.builtin.bin": nil, "modules.builtin.alias.bin": nil,
	} {
		index, err := Write(entries)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), index, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for asked, want := range map[string]string{
		"fs-ext3":                          "insmod DIR/kernel/fs/jbd2/jbd2.ko.xz \ninsmod DIR/kernel/fs/ext4/ext4.ko.xz \n",
		"pci:v00001AF4d1sv1sd1bc01sc01i00": "insmod DIR/kernel/fs/jbd2/jbd2.ko.xz \n",
	} {
		out := disktest.Tool(t, "modprobe", "-C", "/dev/null", "-d", root, "-S", "1.0", "--show-depends", asked)
		if got := strings.ReplaceAll(out, dir, "DIR"); got != want {
			t.Errorf("%s: %q, want %q", asked, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	good, _ := Write(some)
	for name, change := range map[string]func(b []byte) []byte{
		"empty":       func([]byte) []byte { return nil },
		"old":         func(b []byte) []byte { b[3] = 0x57; b[2] = 0xfa; return b },
		"short":       func(b []byte) []byte { return b[:len(b)-3] },
		"no root":     func(b []byte) []byte { clear(b[8:12]); return b },
		"in a circle": func(b []byte) []byte { copy(b[14:], b[8:12]); return b },
	} {
		if got, err := Read(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	for _, e := range []Entry{{"a\x00b", 0, "x"}, {"ä", 0, "x"}, {"a", 0, "x\x00"}} {
		if _, err := Write([]Entry{e}); err == nil {
			t.Errorf("%v is written", e)
		}
	}
}

// FuzzRead reads what may be anything: an error or entries, in no time.
func FuzzRead(f *testing.F) {
	good, _ := Write(some)
	f.Add(good)
	f.Fuzz(func(t *testing.T, index []byte) {
		entries, err := Read(index)
		if err == nil && len(entries) > len(index) {
			t.Errorf("%d entries of %d bytes", len(entries), len(index))
		}
	})
}
