// Package source is where pinned inputs come from: the base of Debian packages,
// executables and container images from upstream Go modules, a release host, a
// folder or an OCI image. There is one file per source and one table of them
// (New). Everything is yielded as content whose digest was checked.
//
// It does not decide what a node needs, and puts nothing on a node.
package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Source is one place where executables and container images come from.
type Source interface {
	// Resolve answers a request for a part or an image. What the source does
	// not have is ErrNotOffered.
	Resolve(ctx context.Context, req lock.Request) (lock.Pin, error)
	// Parts yields the executables of pins that this source resolved, in their order.
	Parts(ctx context.Context, pins []lock.Pin) ([]Executable, error)
	// Images yields the container images of such pins, in their order. Base is
	// the node's operating system, from which images that are packed here take their tools.
	Images(ctx context.Context, pins []lock.Pin, base *tree.Tree) ([]Image, error)
	// Constants says which etcd, CoreDNS and pause this source's kubeadm of that version expects.
	Constants(ctx context.Context, kubernetes string) (Constants, error)
}

// ErrNotOffered says that a source does not have what was asked for.
var ErrNotOffered = errors.New("this source does not have it")

// Options are plain values from the spec and the host.
type Options struct {
	Arch          string // as Go names it: amd64, arm64
	Kubernetes    string // version without "v"; its module also holds pause
	Store         *store.Store
	Report        report.Reporter
	Dir           string // of the source dir: a folder of executables and images/*.tar
	OCI           string // of the source oci: an image reference or a layout folder
	ReleaseURL    string // of the source release; DefaultReleaseURL when empty
	ReleaseRoots  string // PEM file of the certificates that release signatures must chain to; empty: digests only
	ReleaseSigner string // identity in the certificates of release signatures; DefaultReleaseSigner when empty
	Offline       bool   // no network: what neither the store nor Go's module cache has is an error
	BaseBuilder   string // who lays out a Debian base: ByImgbuild, ByMmdebstrap; empty is the former
	Registry      string // host[:port][/path] that stands in for the registry of every image; empty: the name's own
}

// Executable is a file in the store, ready to be put on a node.
type Executable = tree.Section

func executable(name, path string) (Executable, error) {
	e, err := tree.File(path)
	if err != nil {
		return e, fmt.Errorf("reading %s: %w", name, err)
	}
	return e, nil
}

// Set is all sources with one set of options.
type Set struct {
	opt     Options
	sources map[string]Source
	chosen  string // what auto became, once known
}

// New returns the sources. This is the table of them; "auto" stands for one of release and gomodule.
func New(o Options) *Set {
	if o.Report == nil {
		o.Report = report.Discard{}
	}
	mods := &goModule{opt: o}
	return &Set{opt: o, sources: map[string]Source{
		"gomodule": mods,
		"release":  newRelease(o),
		"dir":      &folder{opt: o},
		"oci":      &ociImage{opt: o},
	}}
}

// Names lists what a spec may name as a source of parts, sorted.
func Names() []string {
	return slices.Sorted(maps.Keys(map[string]bool{"auto": true, "gomodule": true, "release": true, "dir": true, "oci": true}))
}

// Choose turns a source's name as the spec says it into the one that is taken:
// auto asks the release host, shortly, and falls back to Go modules, and a note
// says which and why. Later calls give the same answer.
func (s *Set) Choose(ctx context.Context, name string) (string, error) {
	if _, ok := s.sources[name]; ok {
		return name, nil
	}
	if name != "auto" && name != "" {
		return "", fmt.Errorf("unknown source %q: choose one of %s", name, strings.Join(Names(), ", "))
	}
	if s.chosen != "" {
		return s.chosen, nil
	}
	why := probeRelease(ctx, s.opt)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if s.chosen = "release"; why != nil {
		s.chosen = "gomodule"
		s.opt.Report.Note("Kubernetes parts: built from the upstream Go modules, because the release host cannot be used (%v)", why)
	} else {
		s.opt.Report.Note("Kubernetes parts: from the release host %s, which answers", releaseURL(s.opt))
	}
	return s.chosen, nil
}

// Resolve answers every request for a part or an image, in order. What the
// release host does not carry is taken from Go modules, and a note says so.
func (s *Set) Resolve(ctx context.Context, reqs []lock.Request) ([]lock.Pin, error) {
	pins := make([]lock.Pin, 0, len(reqs))
	for _, req := range reqs {
		name, err := s.Choose(ctx, req.Source)
		if err != nil {
			return nil, fmt.Errorf("resolving %s: %w", req.Name, err)
		}
		pin, err := s.sources[name].Resolve(ctx, req)
		if name == "release" && errors.Is(err, ErrNotOffered) {
			s.opt.Report.Note("%s: built from its Go module, because the release host does not carry it", req.Name)
			pin, err = s.sources["gomodule"].Resolve(ctx, req)
		}
		if err != nil {
			return nil, fmt.Errorf("resolving %s %s: %w", req.Name, req.Version, err)
		}
		pins = append(pins, pin)
	}
	return pins, nil
}

// Parts yields the executables of the pins of kind part, by name; other pins are skipped.
func (s *Set) Parts(ctx context.Context, pins []lock.Pin) (map[string]Executable, error) {
	out := map[string]Executable{}
	groups := bySource(pins, lock.KindPart)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		group := groups[name]
		src, ok := s.sources[name]
		if !ok {
			return nil, fmt.Errorf("the lock names an unknown source %q: make the lock anew", name)
		}
		parts, err := src.Parts(ctx, group)
		if err != nil {
			return nil, err
		}
		for i, pin := range group {
			out[pin.Name] = parts[i]
		}
	}
	return out, nil
}

// Images yields the container images of the pins of kind image, sorted by name; other pins are skipped.
func (s *Set) Images(ctx context.Context, pins []lock.Pin, base *tree.Tree) ([]Image, error) {
	var out []Image
	groups := bySource(pins, lock.KindImage)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		group := groups[name]
		src, ok := s.sources[name]
		if !ok {
			return nil, fmt.Errorf("the lock names an unknown source %q: make the lock anew", name)
		}
		images, err := src.Images(ctx, group, base)
		if err != nil {
			return nil, err
		}
		out = append(out, images...)
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Constants asks the named source (or what auto became) for kubeadm's constants.
func (s *Set) Constants(ctx context.Context, name, kubernetes string) (Constants, error) {
	name, err := s.Choose(ctx, name)
	if err != nil {
		return Constants{}, err
	}
	c, err := s.sources[name].Constants(ctx, kubernetes)
	if err != nil {
		return Constants{}, fmt.Errorf("asking kubeadm %s which images it needs: %w", kubernetes, err)
	}
	return c, nil
}

func bySource(pins []lock.Pin, kind lock.Kind) map[string][]lock.Pin {
	out := map[string][]lock.Pin{}
	for _, p := range pins {
		if p.Kind == kind {
			out[p.Source] = append(out[p.Source], p)
		}
	}
	return out
}
