package builder

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/builder/source"
	"github.com/imgbuild/imgbuild/internal/containerd"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// onBoard is the container images of one build: their layers in the store, and what
// containerd is told of them, made once for the same pins.
type onBoard struct {
	set *source.Set
	key string
}

func imagesKey(arch string, pins []lock.Pin) string {
	text, _ := json.Marshal(pins) // plain data cannot fail
	return fmt.Sprintf("containerd 1 %s %x", arch, sha256.Sum256(text))
}

// kept is what an earlier build made; the error says that a part of it is gone.
func (b onBoard) kept() (rootfs.Images, error) {
	var out rootfs.Images
	digest, ok := b.set.Store().Lookup(b.key)
	if !ok {
		return out, os.ErrNotExist
	}
	file, err := b.set.Store().Get(digest)
	if err != nil {
		return out, err
	}
	text, err := os.ReadFile(file) // #nosec G304 -- a blob of the cache
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out.State); err != nil {
		return out, err
	}
	for _, s := range out.State.Snapshots {
		layer, err := b.set.Store().Get(s.Layers[len(s.Layers)-1].String())
		if err != nil {
			return out, err
		}
		out.Layers = append(out.Layers, layer)
	}
	return out, nil
}

// gather gives the images, made anew where nothing or not all is kept.
func (b onBoard) gather(ctx context.Context, pins []lock.Pin, base *tree.Tree) (rootfs.Images, error) {
	if out, err := b.kept(); err == nil {
		return out, nil
	}
	unlock, err := b.set.Store().Lock(ctx, b.key)
	if err != nil {
		return rootfs.Images{}, err
	}
	defer unlock()
	if out, err := b.kept(); err == nil {
		return out, nil
	}
	images, err := b.set.Images(ctx, pins, base)
	if err != nil {
		return rootfs.Images{}, err
	}
	unpacked, err := source.Unpack(ctx, b.set.Store(), images)
	if err != nil {
		return rootfs.Images{}, err
	}
	state, err := containerd.Make(ctx, unpacked)
	if err != nil {
		return rootfs.Images{}, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(json.NewEncoder(w).Encode(state)) }() //nolint:errcheck // always nil
	digest, _, err := b.set.Store().Put(ctx, r)
	_ = r.CloseWithError(err) // so that the encoder ends when the store cannot take it
	if err == nil {
		err = b.set.Store().Record(b.key, digest)
	}
	if err != nil {
		return rootfs.Images{}, err
	}
	return b.kept()
}
