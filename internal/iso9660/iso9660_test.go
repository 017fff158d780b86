package iso9660

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/imgbuild/imgbuild/internal/run"
)

var files = map[string][]byte{"user-data": []byte("#cloud-config\n"), "meta-data": []byte("instance-id: a\n"), "network-config": bytes.Repeat([]byte("x"), 5000)}

func made(t *testing.T) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "seed.iso")
	if err := Write(dst, "cidata", files); err != nil {
		t.Fatal(err)
	}
	return dst
}

// TestSame writes the same bytes in another second.
func TestSame(t *testing.T) {
	first, err := os.ReadFile(made(t))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	second, err := os.ReadFile(made(t))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("two runs differ (%v)", err)
	}
}

// TestRead reads the files back, and asks blkid for the label.
func TestRead(t *testing.T) {
	dst := made(t)
	f, err := os.Open(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := iso9660.Read(file.New(f, true), info.Size(), 0, sector)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := fsys.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if out, err := run.Output(t.Context(), run.Cmd{Name: "blkid", Args: []string{"-p", "-o", "value", "-s", "LABEL", dst}}); err != nil || string(bytes.TrimSpace(out)) != "cidata" {
		t.Errorf("blkid says %q, %v", out, err)
	}
}
