package verify

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func isLayout(name string) bool { return name == "oci-layout" }

// openContainerDisk unpacks the disk of KubeVirt's containerDisk: the one file below
// /disk in the one layer of the one image of an OCI image layout (OCI Image Format 1.1), whose
// blobs are all what their names say.
func openContainerDisk(ctx context.Context, f *os.File, size int64) (*opened, error) {
	files, err := contents(f, size)
	if err != nil {
		return nil, err
	}
	byName := map[string]stored{}
	for _, s := range files {
		byName[s.name] = s
		if digest, ok := strings.CutPrefix(s.name, "blobs/sha256/"); ok {
			sum, err := s.sum(ctx)
			if err != nil {
				return nil, err
			}
			if sum != digest {
				return nil, fmt.Errorf("%s has sha256 %s", s.name, sum)
			}
		}
	}
	var index struct{ Manifests []descriptor }
	if err := decode(byName, "index.json", &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("%d images, want one", len(index.Manifests))
	}
	var manifest struct{ Layers []descriptor }
	if err := decode(byName, index.Manifests[0].blob(), &manifest); err != nil {
		return nil, err
	}
	if len(manifest.Layers) != 1 {
		return nil, fmt.Errorf("%d layers, want one", len(manifest.Layers))
	}
	layer, ok := byName[manifest.Layers[0].blob()]
	if !ok {
		return nil, fmt.Errorf("%s is not there", manifest.Layers[0].blob())
	}
	return unpackLayer(ctx, f, layer)
}

// descriptor names a blob.
type descriptor struct {
	Digest string `json:"digest"`
}

func (d descriptor) blob() string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func decode(files map[string]stored, name string, v any) error {
	s, ok := files[name]
	if !ok {
		return fmt.Errorf("%s is not there", name)
	}
	text, err := s.text()
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func unpackLayer(ctx context.Context, f *os.File, layer io.Reader) (*opened, error) {
	z, err := gzip.NewReader(layer)
	if err != nil {
		return nil, err
	}
	var disk *opened
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && disk != nil:
			return openInside(disk)
		case errors.Is(err, io.EOF):
			err = errors.New("there is no disk in it")
		case err == nil && h.Typeflag == tar.TypeDir && h.Name == "disk/":
			continue
		case err == nil && (h.Typeflag != tar.TypeReg || !strings.HasPrefix(h.Name, "disk/") || disk != nil):
			err = fmt.Errorf("%s: want one file below /disk and nothing else", h.Name)
		case err == nil && (h.Uid != 107 || h.Gid != 107 || h.Mode != 0o440):
			err = fmt.Errorf("%s is of %d:%d, mode %o: want 107:107, 440", h.Name, h.Uid, h.Gid, h.Mode)
		case err == nil:
			disk, err = unpack(ctx, f, r, maxUnpacked)
		}
		if err != nil {
			if disk != nil {
				disk.close()
			}
			return nil, err
		}
	}
}

// openInside opens the qcow2 image that was unpacked.
func openInside(file *opened) (*opened, error) {
	disk, size, err := openQcow2(file, file.size)
	if err != nil {
		file.close()
		return nil, err
	}
	return &opened{ReaderAt: disk, size: size, scratch: file.scratch}, nil
}
