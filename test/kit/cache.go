package kit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
)

// Warm makes dir a cache with what was used of the user's own since then, in files of its
// own: what a test does to them, their access times included, no other build sees.
func Warm(ctx context.Context, dir string, since time.Time) error {
	from, err := store.DefaultDir()
	if err != nil {
		return err
	}
	all, err := store.Open(from)
	if err != nil {
		return err
	}
	entries, err := all.List()
	if err != nil {
		return err
	}
	var used []string
	for _, b := range entries {
		if !b.Used.Before(since.Add(-store.Noted)) {
			used = append(used, filepath.Join(from, "blobs", strings.TrimPrefix(b.Digest, "sha256:")))
		}
	}
	if len(used) == 0 {
		return fmt.Errorf("none of %d blobs in %s was used since %s", len(entries), from, since)
	}
	blobs := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	return errors.Join(run.Run(ctx, run.Cmd{Name: "cp", Args: append([]string{"--reflink=auto", "--target-directory=" + blobs}, used...)}),
		run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"-r", filepath.Join(from, "actions"), dir}}))
}

// Forget takes from a cache what was made under keys that begin so.
func (k Kit) Forget(ctx context.Context, cache string, prefixes ...string) error {
	text, err := k.Imgbuild(ctx, "cache", "ls", "--cache", cache, "--output", "json")
	if err != nil {
		return err
	}
	var entries []struct {
		Digest string   `json:"digest"`
		Keys   []string `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		return err
	}
	for _, e := range entries {
		if slices.ContainsFunc(e.Keys, func(key string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
		}) {
			if err := os.Remove(filepath.Join(cache, "blobs", strings.TrimPrefix(e.Digest, "sha256:"))); err != nil {
				return err
			}
		}
	}
	return nil
}
