package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/imgbuild/imgbuild/builder/lock"
)

// places are the three shapes in which an OCI image with a kubeadm can be given.
func places(t *testing.T) map[string]string {
	t.Helper()
	img := packed(t, map[string]string{"usr/bin/kubeadm": string(self(t)), "usr/share/kubelet": "a folder's name, no executable"})
	pause := packed(t, map[string]string{"pause": "p"})
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(pause, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "registry.k8s.io/pause:3.10.2"})); err != nil {
		t.Fatal(err)
	}
	archive, _ := pack(t, Image{"example.com/parts:1", img}, Image{"registry.k8s.io/pause:3.10.2", pause})
	file := filepath.Join(t.TempDir(), "parts.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	reg := registryWith(t, map[string]v1.Image{"parts:1": img, "pause:3.10.2": pause})
	return map[string]string{"layout": dir, "archive": file, "registry": reg + "/parts:1"}
}

func TestOCIYieldsPartsAndImages(t *testing.T) {
	for shape, where := range places(t) {
		t.Run(shape, func(t *testing.T) {
			o, _ := options(t)
			o.OCI = where
			if shape == "registry" {
				o.Registry = filepath.Dir(where)
			}
			pins, err := New(o).Resolve(t.Context(), []lock.Request{part("kubeadm", "oci"), image("registry.k8s.io/pause:3.10.2", "oci")})
			if err != nil {
				t.Fatal(err)
			}
			fresh, _ := options(t) // another machine, with the lock
			s := New(fresh)
			parts, err := s.Parts(t.Context(), pins)
			if err != nil {
				t.Fatal(err)
			}
			if parts["kubeadm"].Length != int64(len(self(t))) {
				t.Errorf("kubeadm has %d bytes", parts["kubeadm"].Length)
			}
			images, err := s.Images(t.Context(), pins, nil)
			if err != nil {
				t.Fatal(err)
			}
			if digestOf(t, images[0].Image) != pins[1].Digest {
				t.Errorf("image is %s, want %s", digestOf(t, images[0].Image), pins[1].Digest)
			}
			c, err := New(o).Constants(t.Context(), "oci", "1.37.2")
			if diff := cmp.Diff(fakeConstants, c); diff != "" || err != nil {
				t.Error(diff, err)
			}
			_, err = New(o).Resolve(t.Context(), []lock.Request{part("kubelet", "oci")})
			fails(t, err, "has an executable kubelet")
		})
	}
}

func TestOCIRefuses(t *testing.T) {
	for name, test := range map[string]struct{ where, say string }{
		"no place":           {"", "set kubernetes.oci to a reference or a layout folder"},
		"an empty folder":    {t.TempDir(), "is no OCI layout"},
		"a name without tag": {"example.com/parts", "is no image reference with a tag or digest, and no folder"},
		"a password":         {"https://me:hunter2@example.com/parts:1", "holds no user"},
		"no registry":        {"127.0.0.1:1/parts:1", "asking the registry for 127.0.0.1:1/parts:1"},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := options(t)
			o.OCI = test.where
			_, err := New(o).Resolve(t.Context(), []lock.Request{part("kubeadm", "oci")})
			fails(t, err, test.say)
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the password is told")
			}
		})
	}
}

func TestBaseFromOCIIsItsLayers(t *testing.T) {
	o, _ := options(t)
	s := New(o)
	where := registryWith(t, map[string]v1.Image{"os:1": packed(t, map[string]string{"etc/os-release": "ID=x"})}) + "/os:1"
	pins, err := s.ResolveBase(t.Context(), lock.Request{Kind: lock.KindBase, Name: "base", Source: "oci", Args: []string{where}})
	if err != nil {
		t.Fatal(err)
	}
	fresh, _ := options(t)
	layers, err := New(fresh).Base(t.Context(), pins)
	if err != nil {
		t.Fatal(err)
	}
	img, _ := openImage(fresh.Store, pins[0].Digest)
	ls, _ := img.Layers()
	want, _ := ls[0].DiffID()
	if len(layers) != 1 || filepath.Base(layers[0]) != want.Hex {
		t.Errorf("layers %v, want %s", layers, want)
	}
	_, err = s.ResolveBase(t.Context(), lock.Request{Kind: lock.KindBase, Source: "oci"})
	fails(t, err, "set base.oci")
}
