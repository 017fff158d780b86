package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fetch"
)

// resolveBaseOCI pins an image that is a whole operating system. Its place, a
// reference, a layout folder or an archive, is the request's name, or its first argument.
func resolveBaseOCI(ctx context.Context, opt Options, req lock.Request) (lock.Pin, error) {
	where := req.Name
	if len(req.Args) > 0 {
		where = req.Args[0]
	}
	if where == "" {
		return lock.Pin{}, errors.New("an OCI base needs an image: set base.oci to a reference or a layout folder")
	}
	if !isLocal(where) {
		if err := fetch.NoUser(where); err != nil {
			return lock.Pin{}, fmt.Errorf("resolving the base: %w", err)
		}
	}
	list, err := (&ociImage{opt: opt}).keepAll(ctx, where)
	if err != nil {
		return lock.Pin{}, fmt.Errorf("resolving the base %s: %w", where, err)
	}
	if len(list) != 1 {
		return lock.Pin{}, fmt.Errorf("resolving the base %s: it has %d images for %s, want one", where, len(list), opt.Arch)
	}
	pin := lock.Pin{Request: req.Name, Kind: lock.KindBase, Name: req.Name, Version: req.Version, Arch: opt.Arch, Source: "oci", URL: where, Digest: list[0].digest.String()}
	return pin, nil
}

// baseOCI yields the image's layers, uncompressed, in the store, lowest first.
func (s *Set) baseOCI(ctx context.Context, pin lock.Pin) ([]string, error) {
	o := &ociImage{opt: s.opt}
	if err := o.ensure(ctx, pin); err != nil {
		return nil, fmt.Errorf("taking the base from %s: %w", pin.URL, err)
	}
	img, err := openImage(s.opt.Store, pin.Digest)
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("the config of the base %s: %w", pin.URL, err)
	}
	if n := len(config.RootFS.DiffIDs); n != len(layers) {
		return nil, fmt.Errorf("the base %s has %d layers, its config %d diff_ids", pin.URL, len(layers), n)
	}
	paths := make([]string, len(layers))
	for i, l := range layers {
		want := config.RootFS.DiffIDs[i] // the library's DiffID would unpack all of it to tell
		paths[i], err = s.opt.Store.Once(ctx, "oci layer "+want.String(), func(ctx context.Context) (string, error) {
			r, err := l.Uncompressed()
			if err != nil {
				return "", err
			}
			defer r.Close() //nolint:errcheck // read only
			size, err := l.Size()
			if err != nil {
				return "", err
			}
			_, err = s.opt.Store.PutAs(ctx, capped(r, size), want.String())
			return want.String(), err
		})
		if err != nil {
			return nil, fmt.Errorf("unpacking layer %d of the base: %w", i, err)
		}
	}
	return paths, nil
}
