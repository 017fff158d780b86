package builder

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/registry"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/store"
)

// Push sends builds to a registry: all whose manifests lie in a folder, or of one build an
// image alone.
func Push(ctx context.Context, from, reference string, o registry.Options) (*registry.Pushed, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err)
	}
	dir, only := from, ""
	if !info.IsDir() {
		dir, only = filepath.Dir(from), filepath.Base(from)
	}
	return registry.Push(ctx, dir, only, reference, o)
}

// Pull brings builds from a registry into the folder out. They appear whole, by rename, or
// not at all. Without a cache folder it is the XDG one.
func Pull(ctx context.Context, reference string, want registry.Wanted, out, cacheDir string, o registry.Options) ([]registry.Pulled, error) {
	if cacheDir == "" {
		var err error
		if cacheDir, err = store.DefaultDir(); err != nil {
			return nil, err
		}
	}
	cache, err := store.Open(cacheDir)
	if err != nil {
		return nil, err
	}
	scratch, err := makeScratch(out)
	if err != nil {
		return nil, err
	}
	defer scratch.remove()
	pulled, err := registry.Pull(ctx, reference, want, scratch.path, cache, o)
	if err != nil {
		return nil, err
	}
	if err := sameLock(scratch.path, out); err != nil {
		return nil, err
	}
	for _, p := range pulled {
		if err := onlyFiles(out, p.Files); err != nil {
			return nil, err
		}
	}
	for _, p := range pulled {
		if err := settlePulled(scratch.path, out, p); err != nil {
			return nil, err
		}
	}
	return pulled, nil
}

// settlePulled gives a build's files their final names, as publish does.
func settlePulled(scratch, out string, p registry.Pulled) error {
	manifest := filepath.Join(out, p.Manifest)
	if err := os.Remove(manifest); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := []string{p.Manifest + signatureEnding}
	for _, name := range p.Files {
		_, gone := os.Stat(filepath.Join(scratch, name))
		switch {
		case name == p.Manifest || strings.HasSuffix(name, signatureEnding): // the manifest comes last, a signature goes with what it signs
		case name == lock.FileName && gone == nil: // or else it came with another build
			names = append(names, name)
		case name != lock.FileName:
			names = append(names, name, name+signatureEnding)
		}
	}
	public := func(string) fs.FileMode { return 0o644 } // what is pushed holds no secret
	if err := replace(scratch, out, names, public); err != nil {
		return err
	}
	return replace(scratch, out, []string{p.Manifest}, public)
}

// sameLock says whether the lock that came, if any, may take the place of the folder's.
func sameLock(scratch, out string) error {
	came, err := os.ReadFile(filepath.Join(scratch, lock.FileName)) // #nosec G304 -- our own scratch file
	if err != nil {
		return nil // none came
	}
	have, err := os.ReadFile(filepath.Join(out, lock.FileName)) // #nosec G304 -- the folder that the user names
	if err == nil && !bytes.Equal(have, came) {
		return fault.New(fault.Usage, "%s has another %s: pull into a folder of its own", out, lock.FileName)
	}
	return nil
}
