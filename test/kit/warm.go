package kit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	blobs := filepath.Join(dir, "blobs")
	args := []string{"--reflink=auto", "--target-directory=" + blobs}
	used := 0
	for _, b := range entries {
		if !b.Used.Before(since.Add(-store.Noted)) {
			args, used = append(args, filepath.Join(from, "blobs", strings.TrimPrefix(b.Digest, "sha256:"))), used+1
		}
	}
	if used == 0 {
		return fmt.Errorf("none of %d blobs in %s was used since %s", len(entries), from, since)
	}
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	return errors.Join(run.Run(ctx, run.Cmd{Name: "cp", Args: args}),
		run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"-r", filepath.Join(from, "actions"), dir}}))
}
