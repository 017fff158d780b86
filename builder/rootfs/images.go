package rootfs

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/imgbuild/imgbuild/internal/containerd"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// ImagesDir is config.ImagesDir as a tree spells it.
var ImagesDir = strings.TrimPrefix(config.ImagesDir, "/")

// Images is all container images on board: what containerd is told of them, and the
// uncompressed archive of each snapshot's own layer.
type Images struct {
	State  containerd.State
	Layers []string
}

// PlaceImages puts the images on the tree: records as containerd keeps them, layers
// as overlayfs takes them. Nobody but root gets to their set-uid programs. It returns
// which image each folder of layers came with.
func PlaceImages(t *tree.Tree, images Images) (owners map[string]string, err error) {
	if err := t.Put(ImagesDir, tree.Node{Mode: fs.ModeDir | 0o700}); err != nil {
		return nil, err
	}
	for name, data := range images.State.Files {
		if err := t.Put(path.Join(ImagesDir, name), tree.Node{Mode: 0o600, Content: tree.Bytes(data)}); err != nil {
			return nil, err
		}
	}
	owners = map[string]string{}
	for _, s := range images.State.Snapshots {
		layer, err := alone(s.Layers, images)
		if err == nil {
			err = t.Graft(path.Join(ImagesDir, s.Dir), layer)
		}
		if err != nil {
			return nil, fmt.Errorf("unpacking %s, layer %s: %w", s.Image, s.Layers[len(s.Layers)-1], err)
		}
		owners[path.Join(ImagesDir, s.Dir)] = s.Image
	}
	return owners, nil
}

// alone is the topmost of these layers by itself; those below it say where its links
// lead and what it takes away.
func alone(layers []digest.Digest, images Images) (own *tree.Tree, err error) {
	below := tree.New()
	for _, l := range layers {
		if own, err = below.ApplyLayer(images.file(l)); err != nil {
			return nil, err
		}
	}
	return own, nil
}

func (i Images) file(layer digest.Digest) string {
	for n, s := range i.State.Snapshots {
		if s.Layers[len(s.Layers)-1] == layer {
			return i.Layers[n]
		}
	}
	return ""
}
