package source

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// folder takes executables, and container images from images/*.tar (OCI
// archives), from a folder: for sites without a network.
type folder struct {
	opt Options

	mu       sync.Mutex
	archives map[string][]named // what an archive holds, read once
}

var _ Source = (*folder)(nil)

// Resolve implements Source. A part's pin carries the SHA-256 of its file, an image's that of its manifest.
func (f *folder) Resolve(ctx context.Context, req lock.Request) (lock.Pin, error) {
	dir := f.opt.Dir
	if len(req.Args) > 0 {
		dir = req.Args[0]
	}
	if dir == "" {
		return lock.Pin{}, errors.New("the source dir needs a folder: set kubernetes.dir")
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return lock.Pin{}, fmt.Errorf("%s is no folder: set kubernetes.dir to the one that holds the executables", dir)
	}
	pin := lock.Pin{Request: req.Name, Kind: req.Kind, Name: req.Name, Version: strings.TrimPrefix(req.Version, "v"), Arch: f.opt.Arch, Source: "dir"}
	if req.Kind == lock.KindImage {
		return f.resolveImage(ctx, dir, pin)
	}
	for _, sub := range append([]string{"."}, partFolders...) {
		pin.URL = filepath.Join(dir, sub, req.Name)
		info, err := os.Stat(pin.URL)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := checkELF(pin.URL, f.opt.Arch); err != nil {
			return lock.Pin{}, err
		}
		pin.Size = info.Size()
		pin.Digest, err = fileDigest(pin.URL)
		return pin, err
	}
	return lock.Pin{}, fmt.Errorf("%s holds no file %s: %w", dir, req.Name, ErrNotOffered)
}

func (f *folder) resolveImage(ctx context.Context, dir string, pin lock.Pin) (lock.Pin, error) {
	files, err := filepath.Glob(filepath.Join(dir, "images", "*.tar"))
	if err != nil {
		return lock.Pin{}, err
	}
	slices.Sort(files)
	var seen []string
	for _, file := range files {
		list, err := f.archive(ctx, file)
		if err != nil {
			return lock.Pin{}, err
		}
		for _, n := range list {
			if n.name == pin.Name {
				pin.URL, pin.Digest = file, n.digest.String()
				return pin, nil
			}
			seen = append(seen, n.name)
		}
	}
	return lock.Pin{}, fmt.Errorf("no archive in %s holds image %s (there are: %s): %w", filepath.Join(dir, "images"), pin.Name, strings.Join(seen, ", "), ErrNotOffered)
}

func (f *folder) archive(ctx context.Context, file string) ([]named, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if list, ok := f.archives[file]; ok {
		return list, nil
	}
	list, err := keepArchive(ctx, f.opt.Store, file, f.opt.Arch)
	if err != nil {
		return nil, err
	}
	if f.archives == nil {
		f.archives = map[string][]named{}
	}
	f.archives[file] = list
	return list, nil
}

// Parts implements Source: it copies the files into the store and holds them against their pins.
func (f *folder) Parts(ctx context.Context, pins []lock.Pin) ([]Executable, error) {
	out := make([]Executable, len(pins))
	for i, pin := range pins {
		path, err := f.fetch(ctx, pin)
		if err != nil {
			return nil, fmt.Errorf("taking %s: %w", pin.Name, err)
		}
		if out[i], err = executable(pin.Name, path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *folder) fetch(ctx context.Context, pin lock.Pin) (string, error) {
	file, err := os.Open(pin.URL)
	if errors.Is(err, fs.ErrNotExist) {
		return f.opt.Store.Get(pin.Digest) // gone from the folder, but still in the cache
	}
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // read only
	_, err = f.opt.Store.PutAs(ctx, file, pin.Digest)
	var wrong *store.MismatchError
	if errors.As(err, &wrong) {
		return "", fmt.Errorf("%s changed since the lock was made (%w): put the file back, or make the lock anew", pin.URL, wrong)
	}
	if err != nil {
		return "", err
	}
	return f.opt.Store.Get(pin.Digest)
}

// Images implements Source.
func (f *folder) Images(ctx context.Context, pins []lock.Pin, _ *tree.Tree) ([]Image, error) {
	out := make([]Image, len(pins))
	for i, pin := range pins {
		img, err := openImage(f.opt.Store, pin.Digest)
		if err != nil && missing(err) {
			if _, err = f.archive(ctx, pin.URL); err == nil {
				img, err = openImage(f.opt.Store, pin.Digest)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("taking image %s from %s: %w", pin.Name, pin.URL, err)
		}
		out[i] = Image{Name: pin.Name, Image: img}
	}
	return out, nil
}

// Constants implements Source by running the folder's own kubeadm.
func (f *folder) Constants(ctx context.Context, kubernetes string) (Constants, error) {
	pin, err := f.Resolve(ctx, lock.Request{Kind: lock.KindPart, Name: "kubeadm", Version: kubernetes})
	if err != nil {
		return Constants{}, err
	}
	return constantsBy(ctx, f, f.opt, pin, kubernetes)
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path) // #nosec G304 -- the user's folder
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// checkELF refuses what cannot run on the architecture.
func checkELF(path, processor string) error {
	want, err := arch.Of(processor)
	if err != nil {
		return err
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s is no Linux executable: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // read only
	if f.Machine != want.Machine {
		return fmt.Errorf("%s is for %v, want %v", path, f.Machine, want.Machine)
	}
	return nil
}
