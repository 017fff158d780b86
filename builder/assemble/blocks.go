package assemble

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/internal/verity"
)

// salt is the same in all images, so that what lies in the cache is hashed once. It
// makes their hash trees no weaker: SHA-256 needs none to tell two blocks apart.
var salt = sha256.Sum256([]byte("imgbuild verity salt"))

// lastBlocks is the record of what blocks made last.
const lastBlocks = "verity 2 last"

// blocks are the dm-verity digests of those contents of a tree that lie in the cache.
// Its blobs never change, so the digests are kept there, too, and where another tree's are
// kept, what both have is not read again.
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
	list, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	file, err := cache.Once(ctx, fmt.Sprintf("verity 2 %x", sha256.Sum256(list)), func(ctx context.Context) (string, error) {
		text, err := hashAll(ctx, all, lately(cache))
		if err != nil {
			return "", err
		}
		digest, _, err := cache.Put(ctx, io.MultiReader(bytes.NewReader(list), strings.NewReader("\n"), bytes.NewReader(text)))
		if err == nil {
			err = cache.Record(lastBlocks, digest)
		}
		return digest, err
	})
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return nil, err
	}
	text, ours := bytes.CutPrefix(text, append(list, '\n'))
	if !ours || len(text) != total(all) { // a record that leads elsewhere
		if text, err = hashAll(ctx, all, nil); err != nil {
			return nil, err
		}
	}
	return shares(all, text), nil
}

// lately is what blocks made last; where nothing is, or another thing, nothing.
func lately(cache *store.Store) map[tree.Section][]byte {
	digest, ok := cache.Lookup(lastBlocks)
	if !ok {
		return nil
	}
	file, err := cache.Get(digest)
	if err != nil {
		return nil
	}
	text, err := os.ReadFile(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return nil
	}
	list, text, _ := bytes.Cut(text, []byte("\n"))
	var all []tree.Section
	if json.Unmarshal(list, &all) != nil || len(text) != total(all) {
		return nil
	}
	return shares(all, text)
}

// shares gives each section its digests of all, which lie one behind the other.
func shares(all []tree.Section, text []byte) map[tree.Section][]byte {
	out := make(map[tree.Section][]byte, len(all))
	for _, c := range all {
		n := digestsOf(c)
		out[c], text = text[:n:n], text[n:]
	}
	return out
}

// total is how many bytes the digests of all these have.
func total(all []tree.Section) (n int) {
	for _, c := range all {
		n += digestsOf(c)
	}
	return n
}

func digestsOf(c tree.Section) int { return int(verity.Blocks(c.Length)) * sha256.Size }

// hashAll is the digests of all these, one behind the other; those that are known are
// taken as they are.
func hashAll(ctx context.Context, all []tree.Section, known map[tree.Section][]byte) ([]byte, error) {
	out := make([]byte, total(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for c, part := range shares(all, out) {
		if copy(part, known[c]) == len(part) {
			continue
		}
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
