package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// Rebuild builds an image anew from what the manifest beside it says, the spec and
// every pin, and holds the result against the image byte by byte. A difference is
// an error of the kind fault.Verify. Of o it takes the cache, the tools, Offline
// and Report; nothing is left behind.
func Rebuild(ctx context.Context, o Options, image string) error {
	dir, file := filepath.Split(image)
	m, node, err := readManifest(dir, file)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.Outputs, func(w Written) bool { return w.File == file })
	if i < 0 {
		return fault.New(fault.Verify, "%s: the manifest beside it names no such output", image)
	}
	if m.Join != "" && isConfig(m.Outputs[i].Format) {
		return fault.New(fault.Verify, "%s: what hosts join by (--%s) is not in the manifest: it cannot be built again from it", image, m.Join)
	}
	t, err := findTools(o.ToolDir, node.Arch)
	if err != nil {
		return err
	}
	if !maps.Equal(t.digests(), m.Tools) {
		return fault.New(fault.Verify, "%s: built by another imgbuild, whose node programs differ from this one's: rebuild it with that one", image)
	}
	scratch, err := makeScratch(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer scratch.remove()
	node.Output.Formats = []string{m.Outputs[i].Format}
	again := filepath.Join(scratch.path, "again") // the build locks its own folder, and scratch is locked
	o.Role, o.node, o.Out, o.LockFile = m.Role, node, again, filepath.Join(scratch.path, lock.FileName)
	pins := lock.File{Format: lock.Format, Nodes: map[string]lock.Entry{lock.Name(m.Role, m.Arch): lock.NewEntry(plan.Ask(node), m.Inputs)}}
	if err := writeFile(o.LockFile, pins.Bytes()); err != nil {
		return err
	}
	if _, err := Build(ctx, o); err != nil {
		return fmt.Errorf("rebuilding %s: %w", image, err)
	}
	return sameBytes(image, filepath.Join(again, file))
}

func readManifest(dir, image string) (*Manifest, *spec.Node, error) {
	file, text, err := verify.ManifestOf(dir, image)
	if err != nil {
		return nil, nil, fault.New(fault.Verify, "reading the manifest: %w", err)
	}
	m, node := &Manifest{}, &spec.Node{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, nil, fault.New(fault.Verify, "%s: %w", file, err)
	}
	if err := json.Unmarshal(m.Spec, node); err != nil {
		return nil, nil, fault.New(fault.Verify, "%s: its spec: %w", file, err)
	}
	return m, node, nil
}

// sameBytes says where two files begin to differ.
func sameBytes(image, again string) error {
	a, err := os.Open(image) // #nosec G304 -- the image that the caller names
	if err != nil {
		return err
	}
	defer a.Close()          //nolint:errcheck // read only
	b, err := os.Open(again) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // read only
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(x)) {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if err := errors.Join(notEnd(errA), notEnd(errB)); err != nil {
			return err
		}
		if !bytes.Equal(x[:n], y[:m]) {
			i := 0
			for i < min(n, m) && x[i] == y[i] {
				i++
			}
			return fault.New(fault.Verify, "%s: rebuilt, it differs from byte %d on", image, at+int64(i))
		}
		if n < len(x) {
			return nil
		}
	}
}

func notEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
