package firstboot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

const (
	// storeOnBoard is containerd's state as the image brings it: its records, and the
	// unpacked layers of all container images, which stay where they are.
	storeOnBoard = config.ImagesDir
	store        = "/var/lib/containerd"
	// storeOf holds the digest of the records that the store was made of, once it is whole.
	storeOf = "imgbuild-records"
	// layers is the folder with a folder for each layer, of which "fs" holds the files.
	layers = "io.containerd.snapshotter.v1.overlayfs/snapshots"
)

// Images makes containerd's store anew, before containerd starts, where it was not
// made of these records. Nothing is copied but records: layers are links to the read-only
// root. What other images left goes, and so does a store that a power cut left half made.
func (a *Agent) Images(context.Context) error {
	id, err := a.recordsID()
	if err != nil {
		return fmt.Errorf("reading the records of the container images: %w", err)
	}
	to, mark := a.path(store), a.path(store, storeOf)
	if made, err := readLine(mark); err == nil && made == id {
		return nil
	}
	if err := errors.Join(os.MkdirAll(to, 0o711), os.Remove(mark)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(to); err != nil {
		return err
	}
	if err := empty(to); err != nil {
		return fmt.Errorf("emptying containerd's store: %w", err)
	}
	if err := a.fillStore(to); err != nil {
		return fmt.Errorf("filling containerd's store: %w", err)
	}
	if err := syncFS(to); err != nil {
		return err
	}
	return writeDurably(mark, []byte(id+"\n"), 0o600)
}

// records visits what is on board, folders first: a folder, a layer's files (a folder
// that is to be a link), or a record and its bytes.
func (a *Agent) records(visit func(name string, mode fs.FileMode, data []byte) error) error {
	from := a.path(storeOnBoard)
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == from {
			return err
		}
		name, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		switch {
		case filepath.Base(name) == "fs" && filepath.Dir(filepath.Dir(name)) == layers:
			if err := visit(name, fs.ModeSymlink, nil); err != nil {
				return err
			}
			return fs.SkipDir
		case d.IsDir():
			return visit(name, fs.ModeDir, nil)
		}
		data, err := os.ReadFile(file) // #nosec G304 G122 -- of the read-only root
		if err != nil {
			return err
		}
		return visit(name, 0, data)
	})
}

func (a *Agent) recordsID() (string, error) {
	h := sha256.New()
	err := a.records(func(name string, mode fs.FileMode, data []byte) error {
		_, err := fmt.Fprintf(h, "%s %q %d\n%s", mode, name, len(data), data)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

func (a *Agent) fillStore(to string) error {
	return a.records(func(name string, mode fs.FileMode, data []byte) error {
		dst := filepath.Join(to, name)
		switch mode {
		case fs.ModeSymlink:
			return os.Symlink(filepath.Join(storeOnBoard, name), dst)
		case fs.ModeDir:
			return os.Mkdir(dst, 0o700)
		}
		return os.WriteFile(dst, data, 0o600) // #nosec G703 -- a name of the read-only root
	})
}

// leastSpace is what has to be free on /var, in MiB: with less, kubeadm, etcd and the
// first pods fail one after the other, each in its own words.
const leastSpace = 256

// haveSpace says so where /var is full.
func (a *Agent) haveSpace(context.Context) error {
	var s unix.Statfs_t
	if err := unix.Statfs(a.path(StateDir), &s); err != nil {
		return err
	}
	free := s.Bavail * uint64(s.Bsize) >> 20 // #nosec G115 -- a block has a size
	if free < leastSpace {
		return &fault{"make room on /var, or give the machine a larger disk", fmt.Errorf("no space left on device: %d MiB are free on /var, a node needs %d", free, leastSpace)}
	}
	return nil
}

// haveImages wants room for what runs, and the runtime to know every image of the node.
func (a *Agent) haveImages(ctx context.Context) error {
	if err := a.waitFor(ctx, a.haveSpace); err != nil {
		return err
	}
	out, err := a.Runner.Run(ctx, "crictl", "images", "--output", "json")
	if err != nil {
		return fmt.Errorf("containerd does not list its images: %w: %s", err, lastLine(out))
	}
	var list struct {
		Images []struct{ RepoTags []string }
	}
	if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "{")):]), &list); err != nil { // warnings may come first
		return fmt.Errorf("containerd's list of images: %w", err)
	}
	var have []string
	for _, i := range list.Images {
		have = append(have, i.RepoTags...)
	}
	for _, want := range a.facts.Images {
		if !slices.Contains(have, want) {
			return fmt.Errorf("containerd does not know the image %s", want)
		}
	}
	return nil
}
