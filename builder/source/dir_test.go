package source

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/lock"
)

// partsFolder is what an air-gapped site has: executables, and images in an archive.
func partsFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	archive, _ := pack(t, Image{"registry.k8s.io/pause:3.10.2", packed(t, map[string]string{"pause": "p"})})
	err := errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o755), os.Mkdir(filepath.Join(dir, "images"), 0o755),
		os.WriteFile(filepath.Join(dir, "kubeadm"), self(t), 0o755),
		os.WriteFile(filepath.Join(dir, "bin", "kubelet"), self(t), 0o755),
		os.WriteFile(filepath.Join(dir, "kubectl"), []byte("#!/bin/sh\n"), 0o755),
		os.WriteFile(filepath.Join(dir, "images", "all.tar"), archive, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func part(name, source string) lock.Request {
	return lock.Request{Kind: lock.KindPart, Name: name, Version: "1.37.2", Source: source}
}

func image(name, source string) lock.Request {
	return lock.Request{Kind: lock.KindImage, Name: name, Source: source}
}

func TestDirYieldsPartsAndImages(t *testing.T) {
	o, _ := options(t)
	o.Dir = partsFolder(t)
	s := New(o)
	pins, err := s.Resolve(t.Context(), []lock.Request{part("kubeadm", "dir"), part("kubelet", "dir"), image("registry.k8s.io/pause:3.10.2", "dir")})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := s.Parts(t.Context(), pins)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(parts["kubelet"].File)
	if !bytes.Equal(got, self(t)) || len(parts) != 2 {
		t.Errorf("%d parts; kubelet has %d bytes", len(parts), len(got))
	}
	images, err := s.Images(t.Context(), pins, nil)
	if err != nil {
		t.Fatal(err)
	}
	if images[0].Name != "registry.k8s.io/pause:3.10.2" || digestOf(t, images[0].Image) != pins[2].Digest {
		t.Errorf("images %v", images)
	}
	c, err := s.Constants(t.Context(), "dir", "1.37.2")
	if diff := cmp.Diff(fakeConstants, c); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestDirRefuses(t *testing.T) {
	o, _ := options(t)
	o.Dir = partsFolder(t)
	s := New(o)
	for name, test := range map[string]struct {
		req lock.Request
		say string
	}{
		"a part that is not there":       {part("crictl", "dir"), "holds no file crictl: this source does not have it"},
		"a script for an executable":     {part("kubectl", "dir"), "kubectl is no Linux executable"},
		"an image that is in no archive": {image("registry.k8s.io/etcd:1", "dir"), "no archive in " + filepath.Join(o.Dir, "images") + " holds image registry.k8s.io/etcd:1 (there are: registry.k8s.io/pause:3.10.2)"},
		"a folder that is not there":     {lock.Request{Kind: lock.KindPart, Name: "kubeadm", Source: "dir", Args: []string{"/nowhere"}}, "/nowhere is no folder: set kubernetes.dir"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Resolve(t.Context(), []lock.Request{test.req})
			fails(t, err, test.say)
		})
	}
	t.Run("an executable for another machine", func(t *testing.T) {
		arm := o
		arm.Arch = "arm64"
		_, err := New(arm).Resolve(t.Context(), []lock.Request{part("kubeadm", "dir")})
		fails(t, err, "kubeadm is for EM_X86_64, want EM_AARCH64")
	})
	t.Run("a file that changed after the lock", func(t *testing.T) {
		pins, err := s.Resolve(t.Context(), []lock.Request{part("kubeadm", "dir")})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.Dir, "kubeadm"), []byte("new"), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err = s.Parts(t.Context(), pins)
		fails(t, err, "kubeadm changed since the lock was made")
		fails(t, err, "want "+pins[0].Digest)
	})
	t.Run("an archive with a flipped byte", func(t *testing.T) {
		file := filepath.Join(o.Dir, "images", "all.tar")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.LastIndex(b, []byte("\x28\xb5\x2f\xfd")) + 8 // within the last layer, which is zstd
		if i < 8 {
			t.Fatal("the archive has changed its shape")
		}
		b[i] ^= 1
		fresh, _ := options(t)
		fresh.Dir = o.Dir
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = New(fresh).Resolve(t.Context(), []lock.Request{image("registry.k8s.io/pause:3.10.2", "dir")})
		fails(t, err, "want sha256:")
	})
	t.Run("a tar that is no image archive", func(t *testing.T) {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).Close(); err != nil {
			t.Fatal(err)
		}
		fresh, _ := options(t)
		fresh.Dir = t.TempDir()
		if err := errors.Join(os.Mkdir(filepath.Join(fresh.Dir, "images"), 0o755), os.WriteFile(filepath.Join(fresh.Dir, "images", "x.tar"), b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
		_, err := New(fresh).Resolve(t.Context(), []lock.Request{image("registry.k8s.io/pause:3.10.2", "dir")})
		fails(t, err, "x.tar is no OCI archive")
	})
}
