package source

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgbuild/imgbuild/internal/tree"
)

func pack(t *testing.T, images ...Image) ([]byte, []ImageDigest) {
	t.Helper()
	var out bytes.Buffer
	digests, err := PackImages(t.Context(), &out, images)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), digests
}

// sound holds an image against the library's validator, and its layers, which
// that expects to be compressed, against their digests.
func sound(t *testing.T, name string, img v1.Image) {
	t.Helper()
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		want, _ := l.DiffID()
		r, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := v1.SHA256(r); got != want || err != nil {
			t.Errorf("%s: layer has %v, %v; want %v", name, got, err, want)
		}
		packed, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		digest, _ := l.Digest()
		size, _ := l.Size()
		if got, n, err := v1.SHA256(packed); got != digest || n != size || err != nil {
			t.Errorf("%s: the layer's bytes are %v, %d long, %v; its descriptor says %v, %d", name, got, n, err, digest, size)
		}
	}
}

func TestAnArchiveReadsBackAsItWasPacked(t *testing.T) {
	o, _ := options(t)
	a, b := packed(t, map[string]string{"a": "one"}), packed(t, map[string]string{"b": "two"})
	archive, digests := pack(t, Image{"registry.k8s.io/b:1", b}, Image{"registry.k8s.io/a:1", a})
	file := filepath.Join(t.TempDir(), "images.tar")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := keepArchive(t.Context(), o.Store, file, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range list {
		got[n.name] = n.digest.String()
		img, err := openImage(o.Store, n.digest.String())
		if err != nil {
			t.Fatal(err)
		}
		sound(t, n.name, img)
	}
	want := map[string]string{"registry.k8s.io/a:1": digestOf(t, a), "registry.k8s.io/b:1": digestOf(t, b)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if digests[0].Name != "registry.k8s.io/a:1" || digests[0].Digest != digestOf(t, a) {
		t.Errorf("PackImages says %v", digests)
	}
}

func TestTheSameImagesGiveTheSameBytes(t *testing.T) {
	build := func(order ...string) []byte {
		var images []Image
		for _, name := range order {
			images = append(images, Image{"registry.k8s.io/" + name + ":1", packed(t, map[string]string{name: "text of " + name, "etc/x": "y"})})
		}
		archive, _ := pack(t, images...)
		return archive
	}
	if !bytes.Equal(build("a", "b", "c"), build("c", "a", "b")) {
		t.Error("the archives differ")
	}
}

func TestTheSameNameTwiceIsRefused(t *testing.T) {
	o, _ := options(t)
	a := packed(t, map[string]string{"a": "one"})
	_, err := Unpack(t.Context(), o.Store, []Image{{"registry.k8s.io/a:1", a}, {"registry.k8s.io/a:1", a}})
	fails(t, err, "registry.k8s.io/a:1 is there twice")
}

func TestLayersAreKeptUnderTheirDiffIDs(t *testing.T) {
	o, _ := options(t)
	a, b := packed(t, map[string]string{"a": "one"}), packed(t, map[string]string{"b": "two"})
	images, err := Unpack(t.Context(), o.Store, []Image{{"registry.k8s.io/b:1", b}, {"registry.k8s.io/a:1", a}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ name, file, text string }{{"registry.k8s.io/a:1", "a", "one"}, {"registry.k8s.io/b:1", "b", "two"}} {
		layers, err := images[i].Layers()
		if err != nil || images[i].Name != want.name || len(layers) != 1 {
			t.Fatalf("%s has layers %v, %v", images[i].Name, layers, err)
		}
		file, err := o.Store.Get(layers[0].String())
		if err != nil {
			t.Fatal(err)
		}
		tr := tree.New()
		if err := tr.ApplyTar(file); err != nil {
			t.Fatal(err)
		}
		if text, err := tr.ReadFile(want.file); string(text) != want.text || err != nil {
			t.Errorf("%s: %q, %v", want.file, text, err)
		}
	}
}

func TestRecipesLookLikeUpstreamsImages(t *testing.T) {
	base := tree.New()
	for _, p := range netTools.must {
		if err := base.Put(p, tree.Node{Mode: 0o755, Content: tree.Bytes("#!/bin/sh\n")}); err != nil {
			t.Fatal(err)
		}
	}
	type face struct{ Entry, User string }
	got := map[string]face{}
	packer := newPacker(base, "amd64")
	var layers []v1.Layer
	for repo, r := range recipes {
		var parts []Executable
		for _, p := range r.parts {
			file := filepath.Join(t.TempDir(), p.name)
			if err := os.WriteFile(file, []byte(p.name), 0o600); err != nil {
				t.Fatal(err)
			}
			parts = append(parts, Executable{File: file, Length: int64(len(p.name))})
		}
		img, err := packer.pack(r, parts)
		if err != nil {
			t.Fatal(err)
		}
		sound(t, repo, img)
		cfg, _ := img.ConfigFile()
		got[repo] = face{cfg.Config.Entrypoint[0], cfg.Config.User}
		if ls, _ := img.Layers(); len(ls) == 2 {
			layers = append(layers, ls[0])
		}
	}
	want := map[string]face{
		"registry.k8s.io/kube-apiserver":          {"/usr/local/bin/kube-apiserver", ""},
		"registry.k8s.io/kube-controller-manager": {"/usr/local/bin/kube-controller-manager", ""},
		"registry.k8s.io/kube-scheduler":          {"/usr/local/bin/kube-scheduler", ""},
		"registry.k8s.io/kube-proxy":              {"/usr/local/bin/kube-proxy", ""},
		"registry.k8s.io/etcd":                    {"/usr/local/bin/etcd", ""},
		"registry.k8s.io/coredns/coredns":         {"/coredns", "nonroot:nonroot"},
		"registry.k8s.io/pause":                   {"/pause", "65535:65535"},
		"ghcr.io/flannel-io/flannel":              {"/opt/bin/flanneld", ""},
		"ghcr.io/flannel-io/flannel-cni-plugin":   {"/usr/bin/cp", ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, l := range layers {
		a, _ := l.Digest()
		if b, _ := layers[0].Digest(); a != b {
			t.Error("images with tools do not share their layer")
		}
	}
	if len(layers) != 3 {
		t.Errorf("%d images have a tool layer, want 3", len(layers))
	}
}
