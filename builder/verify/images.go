package verify

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Where containerd's state lies in an image, and what is in it, by containerd's
// layout of its root directory.
const (
	imagesDir   = "usr/lib/imgbuild/containerd"
	recordsFile = imagesDir + "/io.containerd.metadata.v1.bolt/meta.db"
	blobsDir    = imagesDir + "/io.containerd.content.v1.content/blobs/sha256"
	layersFile  = imagesDir + "/io.containerd.snapshotter.v1.overlayfs/metadata.db"
	layersDir   = imagesDir + "/io.containerd.snapshotter.v1.overlayfs/snapshots"
)

// records are containerd's two databases.
type records struct {
	p            *replay
	meta, layers *bucket
}

// images is ImagePull without a network: every image that the node names is known to
// containerd, its manifest and configuration are whole, and each of its layers is there.
func (p *replay) images() error {
	r := &records{p: p}
	for file, into := range map[string]**bucket{recordsFile: &r.meta, layersFile: &r.layers} {
		data, err := fs.ReadFile(p.fsys, file)
		if err == nil {
			*into, err = readBolt(data)
		}
		if err != nil {
			p.say("images", file, "cannot be read: %v", err)
			return nil
		}
	}
	for _, name := range p.needed() {
		if !slices.ContainsFunc(p.node.Images, func(ref string) bool { return strings.HasPrefix(ref, name+":") }) {
			p.say("images", name, "is what a %s runs, and the image does not name it", p.node.Role)
		}
	}
	for _, name := range p.node.Images {
		if err := r.whole(name); err != nil {
			p.say("images", name, "%v", err)
		}
	}
	return nil
}

// needed are the images without which a role does not come up: kubeadm's own, and the
// pod network's where the image brings it.
func (p *replay) needed() []string {
	out := []string{"registry.k8s.io/pause", "registry.k8s.io/kube-proxy", "registry.k8s.io/coredns/coredns"}
	if p.node.Role == "master" {
		out = append(out, "registry.k8s.io/kube-apiserver", "registry.k8s.io/kube-controller-manager", "registry.k8s.io/kube-scheduler", "registry.k8s.io/etcd")
	}
	if p.node.CNI == "flannel" {
		out = append(out, "ghcr.io/flannel-io/flannel")
	}
	return out
}

func (r *records) whole(name string) error {
	image := r.meta.under("v1", "k8s.io", "images", name)
	if image == nil {
		return errors.New("is not on board")
	}
	if image.under("labels").value("io.cri-containerd.pinned") != "pinned" {
		return errors.New("is not pinned: the kubelet would remove it when the disk is full")
	}
	var manifest struct{ Config struct{ Digest string } }
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := r.blob(image.under("target").value("digest"), &manifest); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if err := r.blob(manifest.Config.Digest, &config); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	chain := ""
	for _, layer := range config.RootFS.DiffIDs {
		if chain = strings.TrimSpace(chain + " " + layer); chain != layer { // OCI image specification, "Layer ChainID"
			chain = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(chain)))
		}
		if err := r.layer(chain); err != nil {
			return fmt.Errorf("layer %s: %w", layer, err)
		}
	}
	return nil
}

// blob reads a JSON document that containerd keeps, which must have its digest.
func (r *records) blob(digest string, into any) error {
	hex := strings.TrimPrefix(digest, "sha256:")
	if !fs.ValidPath(hex) || r.meta.under("v1", "k8s.io", "content", "blob", digest) == nil {
		return fmt.Errorf("containerd does not know %q", digest)
	}
	data, err := fs.ReadFile(r.p.fsys, path.Join(blobsDir, hex))
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != hex {
		return fmt.Errorf("%s holds something else", digest)
	}
	return json.Unmarshal(data, into)
}

// layer wants the snapshot of a chain of layers, and its files.
func (r *records) layer(chain string) error {
	shared := r.meta.under("v1", "k8s.io", "snapshots", "overlayfs", chain)
	if shared == nil {
		return errors.New("containerd does not know it as unpacked")
	}
	own := r.layers.under("v1", "snapshots", shared.value("name"))
	if own == nil {
		return errors.New("its snapshot is not there")
	}
	id, _ := binary.Uvarint([]byte(own.value("id")))
	dir := path.Join(layersDir, strconv.FormatUint(id, 10), "fs")
	if info, err := fs.Stat(r.p.fsys, dir); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not there", dir)
	}
	return nil
}
