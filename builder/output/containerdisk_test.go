package output

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// TestContainerDisk reads the image as a registry's client does.
func TestContainerDisk(t *testing.T) {
	m := made(t)
	names, content := entries(t, write(t, m, "containerdisk", "edge.containerdisk.tar"))
	dir := t.TempDir()
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if d := manifest.Manifests; len(d) != 1 || d[0].Platform.String() != "linux/amd64" || d[0].Annotations["org.opencontainers.image.ref.name"] != "edge" {
		t.Errorf("index %+v", d)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(err, len(layers))
	}
	text, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer text.Close()
	disk := filepath.Join(dir, "disk.qcow2")
	type file struct {
		Name          string
		Mode          int64
		UID, GID      int
		Type          byte
		Time, Content bool
	}
	var got []file
	for r := tar.NewReader(text); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, file{h.Name, h.Mode, h.Uid, h.Gid, h.Typeflag, h.ModTime.Equal(repro.Epoch()), len(b) > 0})
		if err := os.WriteFile(disk, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []file{{"disk/", 0o755, 107, 107, tar.TypeDir, true, false}, {"disk/edge.qcow2", 0o440, 107, 107, tar.TypeReg, true, true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	disktest.Tool(t, "qemu-img", "check", "-f", "qcow2", disk)
	disktest.Compare(t, m.Disk, "driver=qcow2,file.filename="+disk)
}
