package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgbuild/imgbuild/internal/containerd"
	"github.com/imgbuild/imgbuild/internal/store"
)

// Image is a container image under the full name that a pod asks for, such as
// registry.k8s.io/pause:3.10.2.
type Image struct {
	Name  string
	Image v1.Image
}

// Unpack brings the images' layers into the store, uncompressed, each as the blob
// that its diff id names (OCI image specification 1.1, "Layer DiffID"), and returns
// what containerd has to know of the images, sorted by name.
func Unpack(ctx context.Context, s *store.Store, images []Image) ([]containerd.Image, error) {
	var out []containerd.Image
	for _, i := range images {
		c, err := unpackOne(ctx, s, i)
		if err != nil {
			return nil, fmt.Errorf("unpacking image %s: %w", i.Name, err)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b containerd.Image) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(out); i++ {
		if out[i-1].Name == out[i].Name {
			return nil, fmt.Errorf("image %s is there twice", out[i].Name)
		}
	}
	return out, nil
}

func unpackOne(ctx context.Context, s *store.Store, i Image) (containerd.Image, error) {
	media, err := i.Image.MediaType()
	if err != nil {
		return containerd.Image{}, err
	}
	c := containerd.Image{Name: i.Name, MediaType: string(media)}
	if c.Manifest, err = i.Image.RawManifest(); err != nil {
		return c, err
	}
	if c.Config, err = i.Image.RawConfigFile(); err != nil {
		return c, err
	}
	layers, err := i.Image.Layers()
	if err != nil {
		return c, err
	}
	for _, l := range layers {
		if err := keepLayer(ctx, s, l); err != nil {
			return c, err
		}
	}
	return c, nil
}

func keepLayer(ctx context.Context, s *store.Store, l v1.Layer) error {
	id, err := l.DiffID()
	if err != nil {
		return err
	}
	if _, err := s.Get(id.String()); err == nil {
		return nil
	}
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	_, err = s.PutAs(ctx, r, id.String())
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	return s.Record("containerd layer "+id.String(), id.String()) // so that `imgbuild cache` says what the blob is
}
