package debian

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/store"
)

// largestRelease bounds an InRelease; Debian's have some 150 kB.
const largestRelease = 8 << 20

// Archive reads sources. The newest Release of each that was ever good is kept in
// the store, so that no older one is taken after it.
type Archive struct {
	Store *store.Store
	Fetch *fetch.Client
	Arch  string                           // Debian's word
	Now   time.Time                        // what Release files are judged by
	Note  func(format string, args ...any) // hears of optional sources that are passed over
}

// Read reads the indices of all sources. What stands first wins over what has the
// same version.
func (a *Archive) Read(ctx context.Context, sources []Source) (*Universe, error) {
	u := newUniverse(a.Arch)
	indices := make([][]index, len(sources))
	group, sub := errgroup.WithContext(ctx)
	for i, src := range sources {
		group.Go(func() (err error) {
			if indices[i], err = a.fetch(sub, src); err != nil {
				return src.errorf("%w", err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, src := range sources {
		u.sources = append(u.sources, src)
		for _, ix := range indices[i] {
			if err := u.read(ix, i); err != nil {
				return nil, src.errorf("reading %s: %w", ix.name, err)
			}
		}
	}
	return u, nil
}

// Check says whether a source is there, of that suite, of its time, and signed by one of its keys.
func (a *Archive) Check(ctx context.Context, src Source) error {
	if _, err := a.release(ctx, src); err != nil {
		return src.errorf("%w", err)
	}
	return nil
}

// index is an index that lies in the store.
type index struct {
	name, packing string
	path          string
	plain         file // unpacked; its digest is empty where the Release does not list it
	weight        int
}

// fetch gets the indices of a source; none where an optional one is not there.
func (a *Archive) fetch(ctx context.Context, src Source) ([]index, error) {
	rel, err := a.release(ctx, src)
	if err != nil || rel == nil {
		return nil, err
	}
	arches := []string{a.Arch}
	if rel.allApart {
		arches = append(arches, "all")
	}
	var out []index
	for _, component := range src.Components {
		for _, arch := range arches {
			name, packing, f, err := rel.index(component, arch)
			if err != nil {
				return nil, err
			}
			got, err := a.index(ctx, src, rel, name, f)
			if err != nil {
				return nil, err
			}
			out = append(out, index{name, packing, got, rel.files[strings.TrimSuffix(name, packing)], rel.weight})
		}
	}
	return out, nil
}

// index gets one index, by its hash where the archive has it so: a mirror that is
// just being renewed still has what its Release of a moment ago named.
func (a *Archive) index(ctx context.Context, src Source, rel *release, name string, f file) (string, error) {
	item := fetch.Item{URL: src.dist(name), Size: f.size, SHA256: "sha256:" + f.sha256}
	if f.size == 0 {
		return "", nil
	}
	if rel.byHash {
		plain := item.URL
		item.URL = src.dist(path.Join(path.Dir(name), "by-hash", "SHA256", f.sha256))
		got, err := a.Fetch.Part(ctx, item)
		if !errors.Is(err, fetch.ErrNotFound) {
			return got, err
		}
		item.URL = plain
	}
	return a.Fetch.Part(ctx, item)
}

// release gets, verifies and judges a source's Release; nil where an optional source is not there.
func (a *Archive) release(ctx context.Context, src Source) (*release, error) {
	key := src.memory()
	newest, err := a.newest(key)
	if err != nil {
		return nil, err
	}
	at := src.moment(a.Now)
	text, err := a.signed(ctx, src, at)
	if errors.Is(err, fetch.ErrNotFound) && src.Optional && newest.IsZero() {
		if a.Note != nil {
			a.Note("%s is not there: no package is taken from it", src)
		}
		return nil, nil
	}
	if errors.Is(err, fetch.ErrNotFound) {
		return nil, fmt.Errorf("%w; below an archive's address lies dists/%s/InRelease", err, src.Suite)
	}
	if err != nil {
		return nil, err
	}
	rel, err := parseRelease(text)
	if err != nil {
		return nil, err
	}
	if err := rel.check(src.Suite, at, newest); err != nil {
		return nil, err
	}
	if rel.date.After(newest) {
		err = a.Store.Remember(key, rel.date.Format(time.RFC3339))
	}
	return rel, err
}

// signed gets what a source says of itself and a known key has signed: InRelease or, on a mirror that
// has none, Release with its signature in Release.gpg.
func (a *Archive) signed(ctx context.Context, src Source, at time.Time) ([]byte, error) {
	message, missing := a.Fetch.Small(ctx, src.dist("InRelease"), largestRelease)
	if missing == nil {
		return src.Keys.open(message, at)
	}
	if !errors.Is(missing, fetch.ErrNotFound) {
		return nil, missing
	}
	text, err := a.Fetch.Small(ctx, src.dist("Release"), largestRelease)
	if errors.Is(err, fetch.ErrNotFound) {
		return nil, missing
	}
	if err != nil {
		return nil, err
	}
	sig, err := a.Fetch.Small(ctx, src.dist("Release.gpg"), largestRelease)
	if errors.Is(err, fetch.ErrNotFound) {
		return nil, fmt.Errorf("%w: there is neither InRelease nor Release.gpg beside Release; take another mirror", ErrSignature)
	}
	if err != nil {
		return nil, err
	}
	return src.Keys.detached(text, sig, at)
}

// newest is the date of the newest Release that was good under the key; zero where none is known.
func (a *Archive) newest(key string) (time.Time, error) {
	text, err := a.Store.Recall(key)
	if err != nil || text == "" {
		return time.Time{}, err
	}
	date, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return date, fmt.Errorf("what the cache remembers of it is damaged: %w", err)
	}
	return date, nil
}

// read takes an index in.
func (u *Universe) read(ix index, source int) error {
	if ix.path == "" {
		return nil
	}
	f, err := os.Open(ix.path) // #nosec G304 -- a file of the store
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	plain, err := unpack(bufio.NewReaderSize(f, 1<<20), ix.packing, cmp.Or(ix.plain.size, largestIndex))
	if err != nil {
		return err
	}
	sum := sha256.New()
	err = readPackages(io.TeeReader(plain, sum), u.sources[source], func(p *Package) {
		p.source, p.weight = source, ix.weight
		u.add(p)
	})
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); ix.plain.sha256 != "" && got != ix.plain.sha256 {
		return fmt.Errorf("unpacked it has the SHA-256 %s, its Release says %s", got, ix.plain.sha256)
	}
	return nil
}
