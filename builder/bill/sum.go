package bill

import (
	"context"
	"crypto/sha1" // #nosec G505 -- SPDX 2.3 asks for it, beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

var errGone = errors.New("not in the image")

// Sum is what is known of a file's bytes.
type Sum struct {
	SHA1   string `json:"sha1"`
	SHA256 string `json:"sha256"`
	ELF    bool   `json:"elf,omitempty"`
}

// Sums computes digests of files. What lies in the cache is hashed once: its
// blobs never change, so the digests are kept there, too.
type Sums struct{ Store *store.Store }

// Of returns the digests by path.
func (s Sums) Of(ctx context.Context, files map[string]tree.Content) (map[string]Sum, error) {
	cached, rest := map[string]tree.Content{}, map[string]tree.Content{}
	h := sha256.New()
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if c, ok := files[p].(tree.Section); ok {
			cached[p] = c
			fmt.Fprintf(h, "%q %s %d %d\n", p, c.File, c.Offset, c.Length)
			continue
		}
		rest[p] = files[p]
	}
	out, err := sumAll(ctx, rest)
	if err != nil {
		return nil, err
	}
	kept, err := s.kept(ctx, fmt.Sprintf("sums 1 %x", h.Sum(nil)), cached)
	maps.Copy(out, kept)
	return out, err
}

func (s Sums) kept(ctx context.Context, key string, files map[string]tree.Content) (map[string]Sum, error) {
	if s.Store == nil {
		return sumAll(ctx, files)
	}
	file, err := s.Store.Once(ctx, key, func(ctx context.Context) (string, error) {
		all, err := sumAll(ctx, files)
		if err != nil {
			return "", err
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(json.NewEncoder(w).Encode(all)) }() //nolint:errcheck // always nil
		digest, _, err := s.Store.Put(ctx, r)
		_ = r.CloseWithError(err)
		return digest, err
	})
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return nil, err
	}
	var out map[string]Sum
	return out, json.Unmarshal(text, &out)
}

func sumAll(ctx context.Context, files map[string]tree.Content) (map[string]Sum, error) {
	out, mu := map[string]Sum{}, sync.Mutex{}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for p, c := range files {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			s, err := sum(c)
			if err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
			mu.Lock()
			out[p] = s
			mu.Unlock()
			return nil
		})
	}
	return out, group.Wait()
}

func sum(c tree.Content) (Sum, error) {
	r, err := c.Open()
	if err != nil {
		return Sum{}, err
	}
	defer r.Close()                      //nolint:errcheck // read only
	one, two := sha1.New(), sha256.New() // #nosec G401 -- as above
	magic := make([]byte, 4)
	n, err := io.ReadFull(r, magic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Sum{}, err
	}
	both := io.MultiWriter(one, two)
	_, _ = both.Write(magic[:n]) // a hash takes all
	if _, err := io.Copy(both, r); err != nil {
		return Sum{}, err
	}
	return Sum{hex.EncodeToString(one.Sum(nil)), hex.EncodeToString(two.Sum(nil)), string(magic[:n]) == "\x7fELF"}, nil
}
