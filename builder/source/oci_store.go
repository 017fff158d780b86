package source

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgbuild/imgbuild/internal/store"
)

// named is one manifest of a layout or archive, with the name that its index gives it.
type named struct {
	name   string // "" where the index gives none
	digest v1.Hash
}

// keptImage is an image whose blobs all lie in the store, under their digests.
type keptImage struct {
	store    *store.Store
	manifest []byte
	media    types.MediaType
}

var _ partial.CompressedImageCore = (*keptImage)(nil)

// openImage returns the image with that manifest digest from the store; a blob
// that the store lacks is fs.ErrNotExist.
func openImage(s *store.Store, digest string) (v1.Image, error) {
	k := &keptImage{store: s}
	var err error
	if k.manifest, err = readBlob(s, digest); err != nil {
		return nil, err
	}
	m, err := v1.ParseManifest(bytes.NewReader(k.manifest))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", digest, err)
	}
	if k.media = m.MediaType; k.media == "" {
		k.media = types.OCIManifestSchema1
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, err := s.Get(d.Digest.String()); err != nil {
			return nil, err
		}
	}
	img, err := partial.CompressedToImage(k)
	if err == nil {
		err = bounded(img)
	}
	return img, err
}

func readBlob(s *store.Store, digest string) ([]byte, error) {
	path, err := s.Get(digest)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path) // #nosec G304 -- a path in the store
}

func (k *keptImage) RawManifest() ([]byte, error)        { return k.manifest, nil }
func (k *keptImage) MediaType() (types.MediaType, error) { return k.media, nil }
func (k *keptImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := v1.ParseManifest(bytes.NewReader(k.manifest))
	if err != nil {
		return nil, err
	}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if d.Digest == h {
			return &keptLayer{k.store, d}, nil
		}
	}
	return nil, fmt.Errorf("the image has no layer %s", h)
}

// RawConfigFile implements partial.CompressedImageCore.
func (k *keptImage) RawConfigFile() ([]byte, error) {
	m, err := v1.ParseManifest(bytes.NewReader(k.manifest))
	if err != nil {
		return nil, err
	}
	return readBlob(k.store, m.Config.Digest.String())
}

type keptLayer struct {
	store *store.Store
	desc  v1.Descriptor
}

func (l *keptLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *keptLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *keptLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }
func (l *keptLayer) Compressed() (io.ReadCloser, error) {
	path, err := l.store.Get(l.desc.Digest.String())
	if err != nil {
		return nil, err
	}
	return os.Open(path) // #nosec G304 -- a path in the store
}

// keepImage files all blobs of an image in the store, each checked against its digest.
func keepImage(ctx context.Context, s *store.Store, img v1.Image) error {
	if err := bounded(img); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		h, err := l.Digest()
		if err != nil {
			return err
		}
		if err := keep(ctx, s, h, l.Compressed); err != nil {
			return fmt.Errorf("layer %s: %w", h, err)
		}
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	for _, b := range []blob{memory(config), memory(manifest)} { // the manifest last: with it the image is whole
		if err := keep(ctx, s, b.hash, b.open); err != nil {
			return err
		}
	}
	return nil
}

func keep(ctx context.Context, s *store.Store, h v1.Hash, open func() (io.ReadCloser, error)) error {
	if _, err := s.Get(h.String()); err == nil {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	_, err = s.PutAs(ctx, r, h.String())
	return err
}

// keepArchive files the blobs of a tar of an OCI image layout and returns the
// images that its index names for the architecture.
func keepArchive(ctx context.Context, s *store.Store, file, arch string) ([]named, error) {
	f, err := os.Open(file) // #nosec G304 -- the user's archive
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var index []byte
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if err == io.EOF { //nolint:errorlint // tar.Reader's contract is the bare io.EOF
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		name := path.Clean(h.Name)
		hex, isBlob := strings.CutPrefix(name, "blobs/sha256/")
		switch {
		case name == "index.json":
			if index, err = io.ReadAll(io.LimitReader(tr, 16<<20)); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		case isBlob && h.Typeflag == tar.TypeReg:
			if err := keep(ctx, s, v1.Hash{Algorithm: "sha256", Hex: hex}, func() (io.ReadCloser, error) { return io.NopCloser(tr), nil }); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", file, name, err)
			}
		}
	}
	if index == nil {
		return nil, fmt.Errorf("%s is no OCI archive: it has no index.json (make one with `ctr images export` or `skopeo copy … oci-archive:`)", file)
	}
	return readIndex(index, arch, func(h v1.Hash) ([]byte, error) { return readBlob(s, h.String()) })
}

// keepLayout does the same for a layout folder.
func keepLayout(ctx context.Context, s *store.Store, dir, arch string) ([]named, error) {
	l, err := layout.FromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("%s is no OCI layout: %w", dir, err)
	}
	ii, err := l.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	index, err := ii.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	list, err := readIndex(index, arch, func(h v1.Hash) ([]byte, error) { return l.Bytes(h) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, n := range list {
		img, err := l.Image(n.digest)
		if err == nil {
			err = keepImage(ctx, s, img)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: image %s: %w", dir, n.digest, err)
		}
	}
	return list, nil
}

// readIndex lists the images of an index; of a nested index it takes the one for the architecture.
func readIndex(text []byte, arch string, read func(v1.Hash) ([]byte, error)) ([]named, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("reading the image index: %w", err)
	}
	var out []named
	for _, d := range index.Manifests {
		if d.Platform != nil && d.Platform.Architecture != "" && d.Platform.Architecture != arch && !d.MediaType.IsIndex() {
			continue
		}
		if d.MediaType.IsIndex() {
			inner, err := read(d.Digest)
			if err != nil {
				return nil, err
			}
			list, err := readIndex(inner, arch, func(v1.Hash) ([]byte, error) { return nil, errors.New("image indices are nested twice") })
			if err != nil {
				return nil, err
			}
			for _, n := range list {
				out = append(out, named{nameIn(d), n.digest})
			}
			continue
		}
		if d.MediaType.IsImage() {
			out = append(out, named{nameIn(d), d.Digest})
		}
	}
	return out, nil
}

// nameIn is the full name that an index gives a manifest: containerd's
// annotation, else the OCI one where that is a full name too.
func nameIn(d v1.Descriptor) string {
	if n := d.Annotations["io.containerd.image.name"]; n != "" {
		return n
	}
	if n := d.Annotations["org.opencontainers.image.ref.name"]; strings.Contains(n, "/") {
		return n
	}
	return ""
}

func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrDamaged)
}

// blob is one content-addressed piece of an image.
type blob struct {
	hash v1.Hash
	size int64
	open func() (io.ReadCloser, error)
}

func memory(b []byte) blob {
	hash, size, _ := v1.SHA256(bytes.NewReader(b)) // reading memory cannot fail
	return blob{hash, size, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}
