package source

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/source/dpkg"
	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// The recipes change whenever the same packages would give other layers, or another one on top.
const layerRecipe, topRecipe = "1", "1"

// Lay makes the base's root file system in this process: a layer for each package,
// which the store keeps, and one more for what their maintainer scripts would have
// made. deb returns the file that holds a pin. It returns the layers' files, lowest first.
func (b DebianBase) Lay(ctx context.Context, s *store.Store, pins []lock.Pin, deb func(lock.Pin) (string, error)) ([]string, error) {
	keep, err := dpkg.NewFilter(leaveOut)
	if err != nil {
		return nil, err
	}
	packages := make([]layered, len(pins))
	group, sub := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range bySize(pins) {
		group.Go(func() error {
			file, err := deb(p)
			if err != nil {
				return err
			}
			if packages[i], err = layerOf(sub, s, p, file, keep); err != nil {
				return fmt.Errorf("unpacking package %s %s: %w", p.Name, p.Version, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var layers, digests []string
	for i, p := range bySize(pins) {
		layers = append(layers, packages[i].layers...)
		digests = append(digests, p.Digest)
	}
	key := fmt.Sprintf("base top %s %s %x", topRecipe, dpkg.Revision(), sha256.Sum256([]byte(strings.Join(append(digests, leaveOut...), " "))))
	top, err := s.Once(ctx, key, func(ctx context.Context) (string, error) { return topLayer(ctx, s, packages, layers) })
	if err != nil {
		return nil, fmt.Errorf("laying out the base %s: %w", b.Name, err)
	}
	return append(layers, top), nil
}

// bySize is the pins, the largest package first: its unpacking takes the longest.
func bySize(pins []lock.Pin) []lock.Pin {
	return slices.SortedStableFunc(slices.Values(pins), func(a, b lock.Pin) int { return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Name, b.Name)) })
}

// layered is a package and its layers' files, lowest first.
type layered struct {
	*dpkg.Package
	layers []string
}

func layerOf(ctx context.Context, s *store.Store, pin lock.Pin, file string, keep dpkg.Filter) (out layered, err error) {
	opened, err := deb.Open(file)
	if err != nil {
		return out, err
	}
	if err := sameAsPinned(pin, opened.Control.String()); err != nil {
		return out, err
	}
	key := fmt.Sprintf("package layer %s %s %s", layerRecipe, pin.Digest, strings.Join(leaveOut, " "))
	layer, err := s.Once(ctx, key, func(ctx context.Context) (string, error) {
		return put(ctx, s, func(w io.Writer) error { return dpkg.Layer(opened, keep, w) })
	})
	if err != nil {
		return out, err
	}
	out.layers = []string{layer}
	if out.Package, err = dpkg.New(opened, layer); err != nil || !out.HasModules() {
		return out, err
	}
	key = fmt.Sprintf("kernel indices %s %s", layerRecipe, pin.Digest)
	indices, err := s.Once(ctx, key, func(ctx context.Context) (string, error) {
		made, err := out.Indices()
		if err != nil {
			return "", err
		}
		return put(ctx, s, made.WriteTar)
	})
	if err != nil {
		return out, err
	}
	out.layers = append(out.layers, indices)
	return out, out.AddLayer(indices)
}

// topLayer files what the laid-out tree has beyond the packages' layers.
func topLayer(ctx context.Context, s *store.Store, packages []layered, layers []string) (string, error) {
	var all []*dpkg.Package
	for _, p := range packages {
		all = append(all, p.Package)
	}
	laid, err := dpkg.Lay(all)
	if err != nil {
		return "", err
	}
	below := tree.New()
	for _, l := range layers {
		if err := below.ApplyTar(l); err != nil {
			return "", err
		}
	}
	return put(ctx, s, func(w io.Writer) error { return laid.WriteDelta(w, below) })
}

// put files what write writes.
func put(ctx context.Context, s *store.Store, write func(io.Writer) error) (string, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(write(w)) }() //nolint:errcheck // always nil
	digest, _, err := s.Put(ctx, r)
	_ = r.CloseWithError(err) // so that writing ends when the store cannot take it
	return digest, err
}
