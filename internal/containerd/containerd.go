// Package containerd writes what containerd keeps below its root directory about
// container images: content store, snapshots and metadata, through containerd's own
// packages, with no daemon, no mount and no root. A containerd that starts on it knows
// the images, pulled and unpacked, without having seen an archive. The same images
// give the same bytes.
package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	bolt "go.etcd.io/bbolt"
)

const (
	namespace   = "k8s.io" // the kubelet's
	snapshotter = "overlayfs"

	metaFile      = "io.containerd.metadata.v1.bolt/meta.db"
	blobDir       = "io.containerd.content.v1.content/blobs/sha256"
	snapshotsFile = "io.containerd.snapshotter.v1.overlayfs/metadata.db"
	snapshotsDir  = "io.containerd.snapshotter.v1.overlayfs/snapshots"
)

// Image is an OCI image under the full name that a pod asks for.
type Image struct {
	Name      string `json:"name"` // registry.k8s.io/pause:3.10.2
	MediaType string `json:"mediaType"`
	Manifest  []byte `json:"manifest"`
	Config    []byte `json:"config"`
}

// Layers are the digests of the image's layers, uncompressed, lowest first.
func (i Image) Layers() ([]digest.Digest, error) {
	var config ocispec.Image
	if err := json.Unmarshal(i.Config, &config); err != nil {
		return nil, fmt.Errorf("the configuration of image %s: %w", i.Name, err)
	}
	for _, d := range config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("the configuration of image %s: layer %q is not named by its SHA-256", i.Name, d)
		}
	}
	return config.RootFS.DiffIDs, nil
}

// State is what lies below containerd's root directory.
type State struct {
	Files     map[string][]byte // path → content
	Snapshots []Snapshot        // in the order in which they were made: parents first
}

// Snapshot is a layer of an image on those below it. Its Dir, relative as in Files,
// has to hold the layer's files, deletions as overlayfs writes them.
type Snapshot struct {
	Dir    string
	Image  string          // the first one, by name, that has it
	Layers []digest.Digest // uncompressed, lowest first; the last one's files lie in Dir
}

// Make writes the state for the images. Layers need not be at hand: containerd is
// told that they are unpacked, and that their archives are gone.
func Make(ctx context.Context, all []Image) (*State, error) {
	dir, err := os.MkdirTemp("", "imgbuild-containerd-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch folder
	s, err := makeState(ctx, dir, all)
	if err != nil {
		return nil, fmt.Errorf("writing containerd's state: %w", err)
	}
	return s, nil
}

// open are containerd's stores in a scratch folder.
type open struct {
	state *State
	db    *metadata.DB
	taken map[string]bool // chain ids that have a snapshot
}

func makeState(ctx context.Context, dir string, all []Image) (s *State, err error) {
	logrus.SetOutput(io.Discard) // the library's own log; errors come back as values
	ctx = namespaces.WithNamespace(ctx, namespace)
	meta, snaps := filepath.Join(dir, "meta.db"), filepath.Join(dir, "snapshots")
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		return nil, err
	}
	layers, err := native.NewSnapshotter(snaps) // it keeps the same records as overlayfs', and needs no mount
	if err != nil {
		return nil, err
	}
	db, err := bolt.Open(meta, 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	o := &open{&State{Files: map[string][]byte{}}, metadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{snapshotter: layers}), map[string]bool{}}
	if err = o.db.Init(ctx); err == nil {
		err = o.fill(ctx, all)
	}
	if err = errors.Join(err, layers.Close(), db.Close()); err != nil {
		return nil, err
	}
	if o.state.Files[metaFile], err = settle(meta, moments); err != nil {
		return nil, err
	}
	o.state.Files[snapshotsFile], err = settle(filepath.Join(snaps, "metadata.db"), append(usage, moments...))
	return o.state, err
}

func (o *open) fill(ctx context.Context, all []Image) error {
	for _, i := range slices.SortedFunc(slices.Values(all), func(a, b Image) int { return strings.Compare(a.Name, b.Name) }) {
		if err := o.add(ctx, i); err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	return nil
}

// add is what a pull leaves behind, where layers are discarded once they are
// unpacked: the labels are those by which containerd's garbage collection goes.
func (o *open) add(ctx context.Context, i Image) error {
	layers, err := i.Layers()
	if err != nil {
		return err
	}
	for n := range layers {
		if err := o.unpacked(ctx, i.Name, layers[:n+1]); err != nil {
			return fmt.Errorf("layer %s: %w", layers[n], err)
		}
	}
	config := digest.FromBytes(i.Config)
	labels := map[string]string{}
	if len(layers) > 0 {
		labels["containerd.io/gc.ref.snapshot."+snapshotter] = identity.ChainID(layers).String()
	}
	if err := o.blob(ctx, i.Config, labels); err != nil {
		return err
	}
	if err := o.blob(ctx, i.Manifest, map[string]string{"containerd.io/gc.ref.content.config": config.String()}); err != nil {
		return err
	}
	_, err = metadata.NewImageStore(o.db).Create(ctx, images.Image{Name: i.Name,
		Target: ocispec.Descriptor{MediaType: i.MediaType, Digest: digest.FromBytes(i.Manifest), Size: int64(len(i.Manifest))},
		Labels: map[string]string{"io.cri-containerd.image": "managed", "io.cri-containerd.pinned": "pinned"}}) // pinned: the kubelet does not collect it
	return err
}

func (o *open) blob(ctx context.Context, data []byte, labels map[string]string) error {
	d := digest.FromBytes(data)
	err := content.WriteBlob(ctx, o.db.ContentStore(), d.String(), bytes.NewReader(data), ocispec.Descriptor{Digest: d, Size: int64(len(data))}, content.WithLabels(labels))
	o.state.Files[path.Join(blobDir, d.Encoded())] = data
	return err
}

// unpacked makes the record of the topmost of these layers.
func (o *open) unpacked(ctx context.Context, image string, layers []digest.Digest) error {
	id, parent := identity.ChainID(layers).String(), identity.ChainID(layers[:len(layers)-1]).String()
	if o.taken[id] {
		return nil
	}
	o.taken[id] = true
	s := o.db.Snapshotter(snapshotter)
	mounts, err := s.Prepare(ctx, "unpacking "+id, parent)
	if err != nil {
		return err
	}
	o.state.Snapshots = append(o.state.Snapshots, Snapshot{path.Join(snapshotsDir, filepath.Base(mounts[0].Source), "fs"), image, slices.Clone(layers)})
	return s.Commit(ctx, id, "unpacking "+id)
}
