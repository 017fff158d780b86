package source

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
)

// Who lays out a Debian base.
const (
	ByImgbuild   = "imgbuild"   // this process: no program of a package runs
	ByMmdebstrap = "mmdebstrap" // dpkg, maintainer scripts and all
)

// baseRecipe changes whenever mmdebstrap would make another tree of the same pins.
const baseRecipe = "1"

// ResolveBase pins a base: one pin per package, or one for an OCI image.
func (s *Set) ResolveBase(ctx context.Context, req lock.Request) ([]lock.Pin, error) {
	if req.Source == "oci" {
		pin, err := resolveBaseOCI(ctx, s.opt, req)
		return []lock.Pin{pin}, err
	}
	b, err := debianBase(req, s.opt.Arch)
	if err != nil {
		return nil, err
	}
	if s.opt.Offline {
		return nil, fmt.Errorf("the package indices of %s: %w", b.Suite, fetch.ErrOffline)
	}
	return b.Resolve(ctx, s.opt)
}

// debianBase reads a request back: its name is in the catalogue, its arguments
// are "mirror=URL", "keyring=FILE", "repository=LINE", each only where it is said, and packages.
func debianBase(req lock.Request, arch string) (DebianBase, error) {
	def, err := images.Find(req.Name)
	if err != nil {
		return DebianBase{}, err
	}
	if !slices.Contains(def.Arches, arch) {
		return DebianBase{}, fault.New(fault.Spec, "the base %s is not for %s: use %s", def.Name, arch, strings.Join(def.Arches, " or "))
	}
	b := DebianBase{Name: def.Name, Suite: def.Suite, Arch: arch}
	for _, arg := range req.Args {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "mirror":
			b.Mirror = value
		case "keyring":
			b.Keyring = value
		case "repository":
			b.Repositories = append(b.Repositories, value)
		default: // no package has an = in its name
			b.Packages = append(b.Packages, arg)
		}
	}
	return b, nil
}

// Base yields the base's layers, uncompressed tar archives in the store, lowest first.
func (s *Set) Base(ctx context.Context, pins []lock.Pin) ([]string, error) {
	var base []lock.Pin
	for _, p := range pins {
		if p.Kind == lock.KindBase {
			base = append(base, p)
		}
	}
	if len(base) == 0 {
		return nil, fmt.Errorf("the lock pins no base")
	}
	if base[0].Source == "oci" {
		return s.baseOCI(ctx, base[0])
	}
	for _, p := range base { // packages live as long as layers made of them, so that a later imgbuild can make others
		s.opt.Store.Touch(p.Digest)
	}
	if s.opt.BaseBuilder == ByMmdebstrap {
		return s.bootstrapped(ctx, base)
	}
	return s.laid(ctx, base)
}

// bootstrapped is the base as mmdebstrap makes it: one layer, from the store where it can be.
func (s *Set) bootstrapped(ctx context.Context, pins []lock.Pin) ([]string, error) {
	text, _ := json.Marshal(pins) // plain data cannot fail
	key := fmt.Sprintf("base %s %s %x", baseRecipe, s.opt.Arch, sha256.Sum256(text))
	layer, err := s.opt.Store.Once(ctx, key, func(ctx context.Context) (string, error) {
		if err := run.Need(DebianTools); err != nil {
			return "", err
		}
		b, err := debianBase(lock.Request{Name: pins[0].Request}, s.opt.Arch)
		if err != nil {
			return "", err
		}
		file, err := s.packages(ctx, pins, true)
		if err != nil {
			return "", err
		}
		defer s.opt.Report.Stage("building the base " + b.Name)()
		r, w := io.Pipe()
		go func() {
			w.CloseWithError(b.Build(ctx, pins, file, w)) //nolint:errcheck // always nil
		}()
		digest, _, err := s.opt.Store.Put(ctx, r)
		_ = r.CloseWithError(err) // so that mmdebstrap ends when the store cannot take it
		return digest, err
	})
	return []string{layer}, err
}

// laid is the base as this process lays it out: a layer for each package, and one on top.
func (s *Set) laid(ctx context.Context, pins []lock.Pin) ([]string, error) {
	b, err := debianBase(lock.Request{Name: pins[0].Request}, s.opt.Arch)
	if err != nil {
		return nil, err
	}
	have := kept(s.opt.Store, pins)
	file, err := s.packages(ctx, pins, !have)
	if err != nil {
		return nil, err
	}
	if !have {
		defer s.opt.Report.Stage("laying out the base " + b.Name)()
		if err := b.Judge(ctx, pins, file); err != nil {
			return nil, err
		}
	}
	return b.Lay(ctx, s.opt.Store, pins, file)
}

// packages says which file holds a pinned package: all of them are fetched now, or each
// when it is asked for, as that of a damaged layer is.
func (s *Set) packages(ctx context.Context, pins []lock.Pin, now bool) (file func(lock.Pin) (string, error), err error) {
	item := func(p lock.Pin) fetch.Item { return fetch.Item{URL: p.URL, Size: p.Size, SHA256: p.Digest} }
	client := fetch.New(s.opt.Store, fetch.Options{Offline: s.opt.Offline, Progress: func(done, total int64) { s.opt.Report.Progress("packages", done, total, "B") }})
	if now {
		defer s.opt.Report.Stage(fmt.Sprintf("fetching %d packages", len(pins)))()
		items := make([]fetch.Item, len(pins))
		for i, p := range pins {
			items[i] = item(p)
		}
		_, err = client.All(ctx, items)
	}
	return func(p lock.Pin) (string, error) { return client.Get(ctx, item(p)) }, err
}

// Store is the content store that the sources file into.
func (s *Set) Store() *store.Store { return s.opt.Store }
