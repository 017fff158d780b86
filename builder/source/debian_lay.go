package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/source/dpkg"
	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// laying is a base on its way: a layer for each package, one more for a kernel's indices, and
// one on top for what maintainer scripts would have made. The store keeps each by its key.
type laying struct {
	store *store.Store
	keep  dpkg.Filter
	pins  []lock.Pin // the largest first: its unpacking takes the longest
	file  func(lock.Pin) (string, error)
}

// Lay makes the base's root file system in this process. file returns the file that holds a
// pin, and is asked only when the store lacks a layer. It returns the layers' files, lowest first.
func (b DebianBase) Lay(ctx context.Context, s *store.Store, pins []lock.Pin, file func(lock.Pin) (string, error)) ([]string, error) {
	keep, err := dpkg.NewFilter(leaveOut)
	if err != nil {
		return nil, err
	}
	l := laying{store: s, keep: keep, file: file, pins: bySize(pins)}
	made := make([][]string, len(pins))
	if err := l.each(ctx, func(ctx context.Context, i int) (err error) {
		made[i], err = l.layers(ctx, l.pins[i])
		return err
	}); err != nil {
		return nil, err
	}
	top, err := s.Once(ctx, l.topKey(), func(ctx context.Context) (string, error) { return l.top(ctx, made) })
	if err != nil {
		return nil, fmt.Errorf("laying out the base %s: %w", b.Name, err)
	}
	return append(slices.Concat(made...), top), nil
}

func bySize(pins []lock.Pin) []lock.Pin {
	return slices.SortedStableFunc(slices.Values(pins), func(a, b lock.Pin) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Name, b.Name))
	})
}

// each works on all pins, as many at a time as there are processors.
func (l laying) each(ctx context.Context, work func(ctx context.Context, i int) error) error {
	group, sub := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range l.pins {
		group.Go(func() error {
			if err := work(sub, i); err != nil {
				return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func layerKey(p lock.Pin) string {
	return fmt.Sprintf("package layer %s %s %s", dpkg.LayerRecipe, p.Digest, strings.Join(leaveOut, " "))
}

func indicesKey(p lock.Pin) string { return "kernel indices of " + layerKey(p) }

func (l laying) topKey() string {
	text, _ := json.Marshal([]any{l.pins, leaveOut}) // plain data cannot fail
	return fmt.Sprintf("base top %s %x", dpkg.Revision(), sha256.Sum256(text))
}

// kept says whether the store has all layers of a base, so that no package needs to be fetched.
func kept(s *store.Store, pins []lock.Pin) bool {
	l := laying{pins: bySize(pins)}
	keys := []string{l.topKey()}
	for _, p := range pins {
		if keys = append(keys, layerKey(p)); dpkg.IsKernel(p.Name) {
			keys = append(keys, indicesKey(p))
		}
	}
	return !slices.ContainsFunc(keys, func(key string) bool { _, ok := s.Lookup(key); return !ok })
}

// layers are those of one package, lowest first.
func (l laying) layers(ctx context.Context, pin lock.Pin) ([]string, error) {
	layer, err := l.store.Once(ctx, layerKey(pin), func(ctx context.Context) (string, error) {
		opened, err := l.open(pin)
		if err != nil {
			return "", err
		}
		return put(ctx, l.store, func(w io.Writer) error { return dpkg.Layer(opened, l.keep, w) })
	})
	if err != nil || !dpkg.IsKernel(pin.Name) {
		return []string{layer}, err
	}
	indices, err := l.store.Once(ctx, indicesKey(pin), func(ctx context.Context) (string, error) {
		p, err := l.load(pin, []string{layer})
		if err != nil {
			return "", err
		}
		made, err := p.Indices()
		if err != nil {
			return "", err
		}
		return put(ctx, l.store, made.WriteTar)
	})
	return []string{layer, indices}, err
}

// open opens a package that says of itself what the lock says of it.
func (l laying) open(pin lock.Pin) (*deb.Package, error) {
	file, err := l.file(pin)
	if err != nil {
		return nil, err
	}
	opened, err := deb.Open(file)
	if err != nil {
		return nil, err
	}
	return opened, sameAsPinned(pin, opened.Control.String())
}

func (l laying) load(pin lock.Pin, layers []string) (*dpkg.Package, error) {
	opened, err := l.open(pin)
	if err != nil {
		return nil, err
	}
	return dpkg.New(opened, layers...)
}

// packages are all of them, with their layers.
func (l laying) packages(ctx context.Context, layers [][]string) ([]*dpkg.Package, error) {
	out := make([]*dpkg.Package, len(l.pins))
	return out, l.each(ctx, func(_ context.Context, i int) (err error) {
		out[i], err = l.load(l.pins[i], layers[i])
		return err
	})
}

// Judge reads the scripts of all packages, and nothing else of them: what Lay would say of
// one that nobody read is told before anything is unpacked.
func (b DebianBase) Judge(ctx context.Context, pins []lock.Pin, file func(lock.Pin) (string, error)) error {
	l := laying{file: file, pins: bySize(pins)}
	all, err := l.packages(ctx, make([][]string, len(pins)))
	if err == nil {
		err = dpkg.Judge(all)
	}
	if err != nil {
		return fmt.Errorf("laying out the base %s: %w", b.Name, err)
	}
	return nil
}

// top files what the laid-out tree has beyond the packages' layers.
func (l laying) top(ctx context.Context, layers [][]string) (string, error) {
	packages, err := l.packages(ctx, layers)
	if err != nil {
		return "", err
	}
	laid, err := dpkg.Lay(packages)
	if fault.KindOf(err) == fault.Internal && err != nil {
		err = fault.New(fault.Spec, "%w; %s", err, dpkg.WayOut)
	}
	if err != nil {
		return "", err
	}
	below := tree.New()
	for _, file := range slices.Concat(layers...) {
		if err := below.ApplyTar(file); err != nil {
			return "", err
		}
	}
	return put(ctx, l.store, func(w io.Writer) error { return laid.WriteDelta(w, below) })
}

// put files what write writes.
func put(ctx context.Context, s *store.Store, write func(io.Writer) error) (string, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }() //nolint:errcheck // always nil
	digest, _, err := s.Put(ctx, r)
	_ = r.CloseWithError(err) // so that writing ends when the store cannot take it
	return digest, err
}
