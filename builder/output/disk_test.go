package output

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

const mib = 1 << 20

// made is a small disk with a partition table, as assemble leaves one.
func made(t testing.TB) *Made {
	t.Helper()
	f := disktest.Disk(t, 20*mib)
	if err := gpt.Write(f, gpt.Table{GUID: repro.UUID("disk").String(), Partitions: []gpt.Partition{
		{Name: "root", TypeGUID: gpt.TypeRootAMD64, GUID: repro.UUID("root").String(), Start: mib, Size: 18 * mib, Attrs: gpt.AttrReadOnly},
	}}); err != nil {
		t.Fatal(err)
	}
	boot := disktest.Disk(t, 2*mib)
	return &Made{Disk: f.Name(), Medium: boot.Name(), ID: "0123456789abcdef", Role: "master", Arch: "amd64", Version: "1.37.2"}
}

// write makes a file of that format and that name.
func write(t testing.TB, m *Made, format, name string) string {
	t.Helper()
	f, err := Find(format)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), name)
	if err := f.Write(t.Context(), m, dst, false); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Dir(dst))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the output: %v, %v", left, err)
	}
	return dst
}

// copies are the formats that are made of the disk and leave it where it is.
func copies() (out []Format) {
	for _, f := range All() {
		if (f.Needs == Disk || f.Needs == Medium) && !f.Last {
			out = append(out, f)
		}
	}
	return out
}

// TestSameBytes: the same disk gives the same file on any number of processors, under
// another folder, and once more; another plan's gives another where the format has an id.
func TestSameBytes(t *testing.T) {
	for _, f := range copies() {
		t.Run(f.Name, func(t *testing.T) {
			m := made(t)
			var first string
			disktest.Processors(t, func(n int) {
				if got := digest(t, write(t, m, f.Name, "master")); first == "" {
					first = got
				} else if got != first {
					t.Errorf("with %d processors the file is another", n)
				}
			})
			m.ID = "fedcba9876543210"
			if differs := digest(t, write(t, m, f.Name, "master")) != first; differs != hasID[f.Name] {
				t.Errorf("with another id the file is another: %v", differs)
			}
		})
	}
}

// hasID are the formats that give a disk an id of its own.
var hasID = map[string]bool{"vmdk": true, "ova": true, "vhd": true, "vhdx": true, "iso": true}

func digest(t testing.TB, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, _, err := sparse.SHA256(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(sum)
}

// TestFail: no disk, no room for the file, and an end before the end.
func TestFail(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range copies() {
		t.Run(f.Name, func(t *testing.T) {
			m, dir := made(t), t.TempDir()
			if err := f.Write(cancelled, m, filepath.Join(dir, "cancelled"), true); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
			if err := f.Write(t.Context(), m, filepath.Join(dir, "no", "folder"), false); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("no folder: %v", err)
			}
			m.Disk = filepath.Join(dir, "none")
			if err := f.Write(t.Context(), m, filepath.Join(dir, "none"), false); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("no disk: %v", err)
			}
		})
	}
}

func TestVMDK(t *testing.T) {
	m := made(t)
	file := write(t, m, "vmdk", "master.vmdk")
	disktest.Tool(t, "qemu-img", "check", "-f", "vmdk", file)
	disktest.Compare(t, m.Disk, "driver=vmdk,file.filename="+file)
}

func TestCompressed(t *testing.T) {
	m := made(t)
	for format, tool := range map[string]string{"raw.zst": "zstd", "raw.gz": "gzip"} {
		file := write(t, m, format, "master."+format)
		disktest.Tool(t, tool, "-q", "-t", file)
		want, err := os.ReadFile(m.Disk)
		if err != nil || disktest.Tool(t, tool, "-q", "-d", "-c", file) != string(want) {
			t.Errorf("%s: %v; unpacked, the disk is another", format, err)
		}
	}
}

func TestVHDX(t *testing.T) {
	m := made(t)
	file := write(t, m, "vhdx", "master.vhdx")
	disktest.Tool(t, "qemu-img", "check", "-f", "vhdx", file)
	disktest.Compare(t, m.Disk, "driver=vhdx,file.filename="+file)
}
