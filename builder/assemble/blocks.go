package assemble

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/internal/verity"
)

// salt is the same in all images, so that what lies in the cache is hashed once. It
// makes their hash trees no weaker: SHA-256 needs none to tell two blocks apart.
var salt = sha256.Sum256([]byte("imgbuild verity salt"))

// blocks are the dm-verity digests of those contents of a tree that lie in the cache.
// Its blobs never change, so the digests are kept there, too.
func blocks(ctx context.Context, cache *store.Store, t *tree.Tree) (map[tree.Section][]byte, error) {
	var all []tree.Section
	if err := t.Walk(func(_ string, n *tree.Node) error {
		if c, ok := n.Content.(tree.Section); ok && c.Length >= verity.BlockSize {
			all = append(all, c)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b tree.Section) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	all = slices.Compact(all)
	key, size := sha256.New(), int64(0)
	for _, c := range all {
		size += digestsOf(c)
		fmt.Fprintf(key, "%s %d %d\n", c.File, c.Offset, c.Length)
	}
	file, err := cache.Once(ctx, fmt.Sprintf("verity 1 %x", key.Sum(nil)), func(ctx context.Context) (string, error) {
		text, err := hashAll(ctx, all, size)
		if err != nil {
			return "", err
		}
		digest, _, err := cache.Put(ctx, bytes.NewReader(text))
		return digest, err
	})
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return nil, err
	}
	if int64(len(text)) != size { // a record that leads elsewhere
		if text, err = hashAll(ctx, all, size); err != nil {
			return nil, err
		}
	}
	out := make(map[tree.Section][]byte, len(all))
	for _, c := range all {
		n := digestsOf(c)
		out[c], text = text[:n:n], text[n:]
	}
	return out, nil
}

func digestsOf(c tree.Section) int64 { return verity.Blocks(c.Length) * sha256.Size }

// hashAll is the digests of all these, one behind the other: size bytes.
func hashAll(ctx context.Context, all []tree.Section, size int64) ([]byte, error) {
	out := make([]byte, size)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for rest := out; len(all) > 0; all = all[1:] {
		c, part := all[0], rest[:digestsOf(all[0])]
		rest = rest[len(part):]
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := c.Open()
			if err != nil {
				return err
			}
			defer r.Close() //nolint:errcheck // read only
			digests, err := verity.Digests(r, c.Length, salt[:])
			copy(part, digests)
			return err
		})
	}
	return out, group.Wait()
}
