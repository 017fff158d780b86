package output

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/compress"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// qemuUser is who KubeVirt's QEMU runs as.
const qemuUser = 107

// writeContainerDisk writes KubeVirt's containerDisk: an image with nothing but /disk/NAME.qcow2, as a
// tar of an OCI image layout (OCI Image Format 1.1), which skopeo, podman and crane push. The qcow2 is not
// compressed, for machines read it at each boot; the layer is, for it is what travels.
func writeContainerDisk(ctx context.Context, m *Made, dst string, _ bool) error {
	name, _, _ := strings.Cut(filepath.Base(dst), ".containerdisk")
	disk := dst + ".qcow2"
	defer os.Remove(disk) //nolint:errcheck // the scratch folder goes away anyhow
	if err := writeQcow2(ctx, m, disk, false); err != nil {
		return err
	}
	return reading(disk, func(in *os.File, size int64) error {
		plain, err := layer(name, in, size)
		if err != nil {
			return err
		}
		return create(dst, func(out *os.File) error {
			return writeLayout(ctx, out, plain, v1.Platform{Architecture: m.Arch, OS: "linux"}, name)
		})
	})
}

// layer is the tar of the only layer.
func layer(name string, disk io.ReaderAt, size int64) (sparse.Joined, error) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	folder, file := header("disk/", 0), header("disk/"+name+".qcow2", size)
	folder.Typeflag, folder.Mode, file.Mode = tar.TypeDir, 0o755, 0o440
	for _, h := range []*tar.Header{&folder, &file} {
		h.Uid, h.Gid = qemuUser, qemuUser
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	return sparse.Joined{part(head.Bytes()), {Src: disk, Size: size}, part(ending(size))}, nil
}

// writeLayout writes the layout's tar. The layer's name is its digest, which is known once it is
// written: its header, whose length does not depend on it, follows then.
func writeLayout(ctx context.Context, out *os.File, plain sparse.Joined, platform v1.Platform, name string) error {
	head, err := layoutHead("", 0)
	if err != nil {
		return err
	}
	at := int64(len(head))
	diff, packed := sha256.New(), sha256.New()
	group, sub := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := io.Copy(diff, reader{sub, io.NewSectionReader(plain, 0, plain.Size())})
		return err
	})
	group.Go(func() error {
		return compress.Gzip(sub, io.MultiWriter(io.NewOffsetWriter(out, at), packed), plain, plain.Size())
	})
	if err := group.Wait(); err != nil {
		return err
	}
	info, err := out.Stat()
	if err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: types.OCILayer, Size: info.Size() - at, Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(packed.Sum(nil))}}
	if head, err = layoutHead(d.Digest.Hex, d.Size); err != nil {
		return err
	}
	tail, err := layoutTail(d, v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(diff.Sum(nil))}, platform, name)
	if err != nil {
		return err
	}
	_, err1 := out.WriteAt(head, 0)
	_, err2 := out.WriteAt(append(make([]byte, -info.Size()&511), tail...), info.Size())
	return errors.Join(err1, err2)
}

// layoutHead is what lies before the layer.
func layoutHead(digest string, size int64) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	const version = `{"imageLayoutVersion":"1.0.0"}`
	h := header(blob+fmt.Sprintf("%64s", digest), size)
	err := errors.Join(add(context.Background(), w, "oci-layout", int64(len(version)), strings.NewReader(version)), w.WriteHeader(&h))
	return b.Bytes(), err
}

const blob = "blobs/sha256/"

// layoutTail is what lies behind it.
func layoutTail(layer v1.Descriptor, diff v1.Hash, platform v1.Platform, name string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(name string, v any) (v1.Descriptor, error) {
		text, err := json.Marshal(v)
		if err != nil {
			return v1.Descriptor{}, err
		}
		sum := sha256.Sum256(text)
		d := v1.Descriptor{Size: int64(len(text)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
		if name == "" {
			name = blob + d.Digest.Hex
		}
		return d, add(context.Background(), w, name, d.Size, bytes.NewReader(text))
	}
	created := v1.Time{Time: repro.Epoch()}
	config, err1 := put("", v1.ConfigFile{Architecture: platform.Architecture, OS: platform.OS, Created: created,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diff}}, History: []v1.History{{Created: created, CreatedBy: "imgbuild"}}})
	config.MediaType = types.OCIConfigJSON
	manifest, err2 := put("", v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}})
	manifest.MediaType, manifest.Platform = types.OCIManifestSchema1, &platform
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": name}
	_, err3 := put("index.json", v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{manifest}})
	err := errors.Join(err1, err2, err3, w.Close())
	return b.Bytes(), err
}
