package esp

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const (
	offset = 1 << 20
	size   = 40 << 20
)

var options = Options{Label: "ESP", VolumeID: 0x1234abcd, Epoch: repro.DefaultEpoch}

func files() map[string]tree.Content {
	out := map[string]tree.Content{
		"EFI/BOOT/BOOTX64.EFI":              tree.Bytes(strings.Repeat("boot", 30_000)),
		"EFI/systemd/systemd-bootx64.efi":   tree.Bytes(strings.Repeat("boot", 30_000)),
		"EFI/Linux/imgbuild_1.37.2+3-2.efi": tree.Bytes(bytes.Repeat([]byte("kernel"), 3_000_000)), // more than one chunk
		"EFI/Linux/imgbuild_1.37.3+3-2.efi": tree.Bytes("another with the same short stem"),
		"loader/loader.conf":                tree.Bytes("timeout 0\n"),
		"loader/entries.srel":               tree.Bytes("type1\n"),
		"loader/exactly-one-cluster":        tree.Bytes(bytes.Repeat([]byte("x"), 512)),
		"README.TXT":                        tree.Bytes("short name\n"),
		"Mixed.Case":                        tree.Bytes("mixed\n"),
	}
	for i := range 40 { // a folder of several clusters
		out[fmt.Sprintf("loader/credentials/some-long-name-%02d.cred", i)] = tree.Bytes(fmt.Sprint(i))
	}
	return out
}

func write(t testing.TB, in map[string]tree.Content) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(offset + size + offset); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), f, offset, size, in, options); err != nil {
		t.Fatal(err)
	}
	return name
}

// partition cuts the file system out of the disk image, for tools that take no offset.
func partition(t testing.TB, disk string) string {
	t.Helper()
	all, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range append(all[:offset:offset], all[offset+size:]...) {
		if b != 0 {
			t.Fatalf("byte %d outside the partition was written", i)
		}
	}
	name := filepath.Join(t.TempDir(), "esp.raw")
	if err := os.WriteFile(name, all[offset:offset+size], 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func need(t *testing.T, tool, pkg string) {
	t.Helper()
	if _, err := run.Look(tool); err != nil {
		t.Skipf("%s is not installed (package %s)", tool, pkg)
	}
}

func TestFsck(t *testing.T) {
	need(t, "fsck.vfat", "dosfstools")
	for name, in := range map[string]map[string]tree.Content{"empty": nil, "full": files()} {
		var out bytes.Buffer
		err := run.Run(t.Context(), run.Cmd{Name: "fsck.vfat", Args: []string{"-n", "-v", partition(t, write(t, in))}, Stdout: &out, Stderr: &out})
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out.String())
		}
	}
}

func TestMtools(t *testing.T) {
	need(t, "mcopy", "mtools")
	image, dir := partition(t, write(t, files())), t.TempDir()
	err := run.Run(t.Context(), run.Cmd{Name: "mcopy", Args: []string{"-s", "-i", image, "::*", dir}, Env: []string{"MTOOLS_SKIP_CHECK=1"}})
	if err != nil {
		t.Fatal(err)
	}
	want, got := map[string]string{}, map[string]string{}
	for name, c := range files() {
		want[name] = string(c.(tree.Bytes))
	}
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		b, err := os.ReadFile(p)
		got[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if want[name] != got[name] {
			t.Errorf("%s: %d bytes, want %d", name, len(got[name]), len(want[name]))
		}
	}
	if len(want) != len(got) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	out, err := run.Output(t.Context(), run.Cmd{Name: "mdir", Args: []string{"-a", "-/", "-i", image}, Env: []string{"MTOOLS_SKIP_CHECK=1"}})
	if err != nil {
		t.Fatal(err)
	}
	dates := regexp.MustCompile(`\d{4}-\d\d-\d\d +\d+:\d\d`).FindAllString(string(out), -1)
	slices.Sort(dates)
	if diff := cmp.Diff([]string{"2026-01-01   0:00"}, slices.Compact(dates)); diff != "" {
		t.Errorf("times (-want +mdir):\n%s", diff)
	}
	for _, word := range []string{"1234-ABCD", "Volume in drive : is ESP"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("mdir does not show %q:\n%s", word, out)
		}
	}
}

func TestSameBytesTwice(t *testing.T) {
	a, _ := os.ReadFile(write(t, files()))
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000") // what the library takes its clock from
	b, _ := os.ReadFile(write(t, files()))
	if !bytes.Equal(a, b) {
		t.Error("two runs at different times differ")
	}
}

func TestSparse(t *testing.T) {
	info, err := os.Stat(write(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 4<<20 {
		t.Errorf("an empty partition takes %d bytes of disk", used)
	}
}

func TestFatTime(t *testing.T) {
	type stamp struct{ Date, Clock uint16 }
	for epoch, want := range map[int64]stamp{
		0:                  {33, 0},
		repro.DefaultEpoch: {46<<9 | 1<<5 | 1, 0},
		1700000001:         {43<<9 | 11<<5 | 14, 22<<11 | 13<<5 | 10},
	} {
		var got stamp
		got.Date, got.Clock = fatTime(epoch)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d: %s", epoch, diff)
		}
	}
}

type lying struct {
	tree.Bytes
	size int64
}

func (l lying) Size() int64 { return l.size }

func TestRefused(t *testing.T) {
	x := tree.Bytes("x")
	cases := map[string]struct {
		files map[string]tree.Content
		want  string
	}{
		"too large": {map[string]tree.Content{"big": tree.Bytes(make([]byte, size))}, "make it larger"},
		"case":      {map[string]tree.Content{"a": x, "A": x}, "same on FAT"},
		"case dir":  {map[string]tree.Content{"efi/a": x, "EFI/b": x}, "same on FAT"},
		"file dir":  {map[string]tree.Content{"efi": x, "efi/b": x}, "same on FAT"},
		"slash":     {map[string]tree.Content{"/efi": x}, "not clean"},
		"dots":      {map[string]tree.Content{"../efi": x}, "not clean"},
		"bad name":  {map[string]tree.Content{"a:b": x}, "cannot be stored"},
		"unicode":   {map[string]tree.Content{"ä": x}, "ASCII"},
		"short":     {map[string]tree.Content{"a": lying{x, 2}}, "promised 2"},
		"long":      {map[string]tree.Content{"a": lying{tree.Bytes("xy"), 1}}, "longer than"},
		"empty":     {map[string]tree.Content{"a": tree.Bytes("")}, "0 bytes"},
		"8.3 clash": {map[string]tree.Content{"a.conf": x, "a.con": x}, "short form"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(offset + size); err != nil {
				t.Fatal(err)
			}
			if err := Write(t.Context(), f, offset, size, c.files, options); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
