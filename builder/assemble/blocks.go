package assemble

import (
	"bufio"
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

// digests are the dm-verity digests of those contents of a tree that lie in the cache.
type digests struct {
	file *os.File // that they are read from; nil: they are in memory
	of   map[tree.Section]*io.SectionReader
}

func (d *digests) close() {
	if d.file != nil {
		_ = d.file.Close() // read only
	}
}

// blocks finds or makes the digests of a tree. The cache's blobs never change, so the
// digests are kept there, too, and where another tree's are kept, what both have is not
// read again.
func blocks(ctx context.Context, cache *store.Store, t *tree.Tree) (*digests, error) {
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
	if d := open(file, all, list); d != nil { // else the record leads elsewhere
		return d, nil
	}
	text, err := hashAll(ctx, all, &digests{})
	return &digests{nil, shares(all, bytes.NewReader(text), 0)}, err
}

// lately is what blocks made last; where nothing is, or another thing, nothing.
func lately(cache *store.Store) *digests {
	if digest, ok := cache.Lookup(lastBlocks); ok {
		if file, err := cache.Get(digest); err == nil {
			if d := open(file, nil, nil); d != nil {
				return d
			}
		}
	}
	return &digests{}
}

// open opens the digests that blocks filed, of all these, which list says in JSON; with nil,
// of whatever they are. Another thing is nil.
func open(file string, all []tree.Section, list []byte) *digests {
	f, err := os.Open(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return nil
	}
	line, err := bufio.NewReader(f).ReadBytes('\n')
	info, ierr := f.Stat()
	ours := err == nil && ierr == nil
	if all == nil {
		ours = ours && json.Unmarshal(line, &all) == nil
	} else {
		ours = ours && bytes.Equal(line[:len(line)-1], list)
	}
	if !ours || info.Size() != int64(len(line)+total(all)) {
		_ = f.Close()
		return nil
	}
	return &digests{f, shares(all, f, int64(len(line)))}
}

// shares gives each section its digests of all, which lie one behind the other from at on.
func shares(all []tree.Section, text io.ReaderAt, at int64) map[tree.Section]*io.SectionReader {
	out := make(map[tree.Section]*io.SectionReader, len(all))
	for _, c := range all {
		n := int64(digestsOf(c))
		out[c] = io.NewSectionReader(text, at, n)
		at += n
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
// taken as they are. It closes them.
func hashAll(ctx context.Context, all []tree.Section, known *digests) ([]byte, error) {
	defer known.close()
	out := make([]byte, total(all))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	rest := out
	for _, c := range all {
		n := digestsOf(c)
		part := rest[:n:n]
		rest = rest[n:]
		if r := known.of[c]; r != nil {
			if got, _ := r.ReadAt(part, 0); got == n {
				continue
			}
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
