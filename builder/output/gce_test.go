package output

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/gpt"
)

// unpacked is the file in a tar.gz, with holes: what tar writes of it has none.
func unpacked(t *testing.T, file string) *os.File {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil || h.Name != "disk.raw" {
		t.Fatal(err, h)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), h.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	b, zero := make([]byte, mib), make([]byte, mib)
	for at := int64(0); at < h.Size; at += mib {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, zero) {
			if _, err := out.WriteAt(b, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out.Truncate(h.Size); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error("behind disk.raw: ", err)
	}
	return out
}

// TestGCE: the disk is a whole GiB, its table is one that sgdisk has
// nothing to say of, and all between the tables is as it was.
func TestGCE(t *testing.T) {
	m := made(t)
	file := write(t, m, "gce", "master.gce.tar.gz")
	if out := disktest.Tool(t, "tar", "--numeric-owner", "-tvzf", file); !strings.HasPrefix(out, "-rw-r--r-- 0/0") || strings.Count(out, "\n") != 1 {
		t.Errorf("tar has %s", out)
	}
	disk := unpacked(t, file)
	if info, err := disk.Stat(); err != nil || info.Size() != 1<<30 {
		t.Fatalf("%v; %d bytes", err, info.Size())
	}
	if out := disktest.Tool(t, "sgdisk", "-v", disk.Name()); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	raw, err := os.Open(m.Disk)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	want, err1 := gpt.Read(io.NewSectionReader(raw, 0, 20*mib))
	got, err2 := gpt.Read(io.NewSectionReader(disk, 0, 1<<30))
	if diff := cmp.Diff(want, got); diff != "" || err1 != nil || err2 != nil {
		t.Error(diff, err1, err2)
	}
	a, b := make([]byte, 20*mib-tableFirst-tableLast), make([]byte, 20*mib-tableFirst-tableLast)
	_, err1 = raw.ReadAt(a, tableFirst)
	_, err2 = disk.ReadAt(b, tableFirst)
	if err1 != nil || err2 != nil || string(a) != string(b) {
		t.Error("the disk is another", err1, err2)
	}
}

func TestGCERefused(t *testing.T) {
	m := &Made{Disk: disktest.Disk(t, mib).Name()}
	if err := writeGCE(t.Context(), m, filepath.Join(t.TempDir(), "out"), false); err == nil || !strings.Contains(err.Error(), "reading the partition table") {
		t.Error(err)
	}
}
