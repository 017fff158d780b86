package source

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// ImageDigest says what lies in an archive under a name.
type ImageDigest struct {
	Name   string `json:"name"`
	Digest string `json:"digest"` // of the manifest
	Size   int64  `json:"size"`   // of the layers, bytes as they lie in the archive
}

// PackImages writes the images to w as one tar of an OCI image layout (OCI image
// specification 1.1, "image layout"), each blob once, in a fixed order with fixed
// times: the same images give the same bytes. Its index names each image in full,
// so that `ctr images import` and containerd's CRI find it under that name.
func PackImages(ctx context.Context, w io.Writer, images []Image) ([]ImageDigest, error) {
	images = slices.SortedFunc(slices.Values(images), func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	blobs := map[v1.Hash]blob{}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	var out []ImageDigest
	for i, img := range images {
		if i > 0 && images[i-1].Name == img.Name {
			return nil, fmt.Errorf("packing images: %s is there twice", img.Name)
		}
		desc, size, err := addImage(img, blobs)
		if err != nil {
			return nil, fmt.Errorf("packing image %s: %w", img.Name, err)
		}
		index.Manifests = append(index.Manifests, desc)
		out = append(out, ImageDigest{Name: img.Name, Digest: desc.Digest.String(), Size: size})
	}
	if err := writeLayout(ctx, w, index, blobs); err != nil {
		return nil, fmt.Errorf("writing the image archive: %w", err)
	}
	return out, nil
}

// addImage collects an image's blobs and returns its line in the index.
func addImage(img Image, blobs map[v1.Hash]blob) (v1.Descriptor, int64, error) {
	manifest, err := img.Image.RawManifest()
	if err != nil {
		return v1.Descriptor{}, 0, err
	}
	config, err := img.Image.RawConfigFile()
	if err != nil {
		return v1.Descriptor{}, 0, err
	}
	media, err := img.Image.MediaType()
	if err != nil {
		return v1.Descriptor{}, 0, err
	}
	cfg, err := img.Image.ConfigFile()
	if err != nil {
		return v1.Descriptor{}, 0, err
	}
	m := memory(manifest)
	c := memory(config)
	blobs[m.hash], blobs[c.hash] = m, c
	layers, err := img.Image.Layers()
	if err != nil {
		return v1.Descriptor{}, 0, err
	}
	var total int64
	for _, l := range layers {
		b, err := layerBlob(l)
		if err != nil {
			return v1.Descriptor{}, 0, err
		}
		total += b.size
		if _, ok := blobs[b.hash]; !ok {
			blobs[b.hash] = b
		}
	}
	_, tag := splitTag(img.Name)
	return v1.Descriptor{
		MediaType: media, Digest: m.hash, Size: m.size,
		Platform: &v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant},
		Annotations: map[string]string{
			"io.containerd.image.name":          img.Name,
			"org.opencontainers.image.ref.name": tag,
		},
	}, total, nil
}

func layerBlob(l v1.Layer) (blob, error) {
	hash, err := l.Digest()
	if err != nil {
		return blob{}, err
	}
	size, err := l.Size()
	return blob{hash, size, l.Compressed}, err
}

func writeLayout(ctx context.Context, w io.Writer, index v1.IndexManifest, blobs map[v1.Hash]blob) error {
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	head := []struct {
		name string
		b    blob
	}{{"oci-layout", memory([]byte(`{"imageLayoutVersion":"1.0.0"}`))}, {"index.json", memory(text)}}
	for _, h := range head {
		if err := writeBlob(ctx, tw, h.name, h.b); err != nil {
			return err
		}
	}
	hashes := make([]v1.Hash, 0, len(blobs))
	for h := range blobs {
		hashes = append(hashes, h)
	}
	slices.SortFunc(hashes, func(a, b v1.Hash) int { return strings.Compare(a.String(), b.String()) })
	for _, h := range hashes {
		if err := writeBlob(ctx, tw, "blobs/"+h.Algorithm+"/"+h.Hex, blobs[h]); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeBlob(ctx context.Context, tw *tar.Writer, name string, b blob) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	header := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: b.size, ModTime: repro.Epoch(), Format: tar.FormatPAX}
	if err := tw.WriteHeader(header); err != nil {
		return err
	}
	r, err := b.open()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	if _, err = io.Copy(tw, r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
