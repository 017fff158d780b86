// Command release packs a root file system as the OCI image of imgbuild itself,
// in the form that `docker load` and skopeo read. release.sh calls it.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/imgbuild/imgbuild/internal/repro"
)

func main() {
	root := flag.String("root", "", "tar of the root file system")
	ref := flag.String("name", "imgbuild:0.0.0", "name and tag")
	arch := flag.String("arch", "amd64", "architecture")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := pack(*root, *ref, *arch, *out); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func pack(root, ref, arch, out string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	layer, err := tarball.LayerFromFile(root)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	_, version, _ := strings.Cut(ref, ":")
	image, err = mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: v1.Time{Time: repro.Epoch()},
		RootFS: rootFS(image),
		Config: v1.Config{Entrypoint: []string{"/usr/bin/imgbuild"}, WorkingDir: "/work", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Labels: map[string]string{"org.opencontainers.image.title": "imgbuild", "org.opencontainers.image.version": version}},
	})
	if err != nil {
		return err
	}
	return tarball.WriteToFile(out, tag, image)
}

func rootFS(image v1.Image) v1.RootFS {
	c, err := image.ConfigFile()
	if err != nil {
		return v1.RootFS{Type: "layers"}
	}
	return c.RootFS
}
