package verify

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/containerd"
	"github.com/imgbuild/imgbuild/internal/erofs"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// FuzzImage gives whole small files, raw and qcow2.
func FuzzImage(f *testing.F) {
	disk := make([]byte, 40*512)
	copy(disk[512:], "EFI PART")
	f.Add(disk)
	f.Add(append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 4096)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Image(t.Context(), file); err == nil && len(r.Findings) == 0 {
			t.Error("good")
		}
	})
}

func whole(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func FuzzUKI(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Fuzz(func(_ *testing.T, data []byte) { _ = (&Report{}).readUKI(bytes.NewReader(data), int64(len(data))) })
}

func FuzzESP(f *testing.F) {
	boot := make([]byte, 64<<10)
	copy(boot, "\xeb\x58\x90mkfs.fat\x00\x02\x01\x20\x00\x02\x00\x00\x00\x00\xf8\x00\x00\x20\x00\x08\x00\x00\x00\x00\x00\x80\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00\x06\x00")
	copy(boot[510:], "\x55\xaa")
	f.Add(boot)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &Report{}
		_ = guard(func() error { return r.readBoot(whole(data), true) })
	})
}

func FuzzVerity(f *testing.F) {
	f.Add(make([]byte, 8192), append([]byte("verity\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"), make([]byte, 8192)...))
	f.Fuzz(func(t *testing.T, root, hashes []byte) {
		if sound, err := (&Report{RootHash: "00"}).checkVerity(t.Context(), whole(root), whole(hashes)); err == nil && sound {
			t.Error("sound")
		}
	})
}

func FuzzRoot(f *testing.F) {
	out, err := os.Create(filepath.Join(f.TempDir(), "root"))
	if err != nil {
		f.Fatal(err)
	}
	defer out.Close()
	root := tree.New()
	for _, p := range []string{"etc/machine-id", "etc/passwd", "etc/imgbuild/node.json"} {
		if err := root.Put(p, tree.Node{Mode: 0o644, Content: tree.Bytes("x")}); err != nil {
			f.Fatal(err)
		}
	}
	if _, err := erofs.Write(f.Context(), out, root, erofs.Options{}); err != nil {
		f.Fatal(err)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(_ *testing.T, data []byte) {
		r := &Report{}
		_ = guard(func() error { return r.readRoot(whole(data)) })
	})
}

// FuzzBolt begins with containerd's real records.
func FuzzBolt(f *testing.F) {
	state, err := containerd.Make(f.Context(), []containerd.Image{{Name: "a:1", MediaType: "application/vnd.oci.image.manifest.v1+json", Manifest: []byte("{}"), Config: []byte("{}")}})
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range state.Files {
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = readBolt(data) })
}
