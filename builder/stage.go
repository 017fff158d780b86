package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/builder/source"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/profiles"
)

// Load reads the role's profile, the files and the settings into a checked node.
func Load(o Options) (*spec.Node, error) {
	if o.node != nil {
		return o.node, nil
	}
	in := spec.Input{Role: o.Role, Profiles: profiles.Files, Sets: o.Sets}
	if o.Host != "" {
		if slices.Contains(images.Names(), o.Host) {
			return nil, fault.New(fault.Usage, "--base is the operating system of the host that reads a config; the node's own base is named by --set base.name=%s", o.Host)
		}
		in.Sets = append(slices.Clone(in.Sets), "host.os="+o.Host)
	}
	for _, name := range o.Files {
		data, err := readDocument(name)
		if err != nil {
			return nil, fault.New(fault.Spec, "reading the spec: %w", err)
		}
		in.Files = append(in.Files, spec.Document{Name: name, Data: data})
	}
	node, found := spec.Load(in)
	for _, w := range found.Warnings() {
		o.Report.Note("%s", w)
	}
	if err := found.Err(); err != nil {
		return nil, fault.Wrap(fault.Spec, err)
	}
	if err := o.forHost(node.Output.Formats); err != nil {
		return nil, err
	}
	_, err := networkManifest(node.CNI.Manifest) // so that no stage begins with another one
	return node, err
}

// forHost says so when a host is named that would read nothing of what is made.
func (o Options) forHost(formats []string) error {
	needs, err := output.Needed(formats)
	if err != nil || o.Host == "" || needs[output.Payload] || needs[output.Images] || needs[output.Archive] {
		return err
	}
	return fault.New(fault.Usage, "--base %s: none of the formats %s is for a host; add one, such as --format ignition,sysext", o.Host, strings.Join(formats, ", "))
}

// readDocument stops where a document is too large, so that none is too large to read.
func readDocument(name string) ([]byte, error) {
	f, err := os.Open(name) // #nosec G304 -- the file that the user named
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(f, spec.MaxDocument+1))
}

func openSources(o Options, n *spec.Node) (*source.Set, error) {
	dir := o.CacheDir
	if dir == "" {
		var err error
		if dir, err = store.DefaultDir(); err != nil {
			return nil, err
		}
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, err
	}
	k := n.Kubernetes
	return source.New(source.Options{Arch: n.Arch, Kubernetes: k.Version, Store: s, Report: o.Report, Dir: k.Dir, OCI: k.OCI,
		ReleaseURL: k.Release.URL, ReleaseRoots: k.Release.Roots, Registry: k.Release.Registry,
		Offline: o.Offline, BaseBuilder: n.Base.Builder}), nil
}

// settle gives the role's pins: from the lock file where it answers, newly made
// and written where it has none. A stale lock is an error that says how it differs.
func settle(ctx context.Context, o Options, n *spec.Node, s *source.Set) ([]lock.Pin, error) {
	locked, err := readLock(o)
	if err != nil {
		return nil, err
	}
	name := lock.Name(n.Role, n.Arch)
	if _, ok := locked.Nodes[name]; ok {
		return locked.Nodes[name].Pins, stale(o, n, locked)
	}
	if o.Offline {
		return nil, fault.New(fault.Lock, "%s pins nothing for %s, and --offline cannot: run `imgbuild fetch %s` with the network on", o.lockPath(), name, n.Role)
	}
	release, err := lockAlone(ctx, o)
	if err != nil {
		return nil, err
	}
	defer release()
	if locked, err = resolve(ctx, o, n, s); err != nil {
		return nil, err
	}
	return locked.Nodes[name].Pins, writeFile(o.lockPath(), locked.Bytes())
}

// stale is an error where the lock has pins for the node, and they answer another one.
func stale(o Options, n *spec.Node, locked *lock.File) error {
	name := lock.Name(n.Role, n.Arch)
	if _, ok := locked.Nodes[name]; !ok {
		return nil
	}
	if why := locked.Stale(name, plan.Ask(n)); len(why) > 0 {
		return lock.StaleError(o.lockPath(), name, why)
	}
	return nil
}

// lockAlone waits until no other run is about to write the lock file, so that two
// first builds agree on their pins and keep each other's.
func lockAlone(ctx context.Context, o Options) (release func(), err error) {
	dir := filepath.Dir(o.lockPath())
	if err := needFolder(dir); err != nil {
		return nil, err
	}
	door := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	if _, err := door.TryLockContext(ctx, lockWait); err != nil {
		return nil, fmt.Errorf("waiting for another build to write %s: %w", o.lockPath(), err)
	}
	return func() { _ = door.Unlock() }, nil
}

// lockWait is how often a build asks whether another one has written the lock.
const lockWait = 100 * time.Millisecond

func readLock(o Options) (*lock.File, error) {
	data, err := os.ReadFile(o.lockPath())
	if errors.Is(err, fs.ErrNotExist) {
		return &lock.File{Format: lock.Format, Nodes: map[string]lock.Entry{}}, nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		if err := needFolder(filepath.Dir(o.lockPath())); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fault.New(fault.Lock, "reading the lock: %w", err)
	}
	f, err := lock.Parse(data)
	if err != nil {
		return nil, fault.New(fault.Lock, "%s: %w", o.lockPath(), err)
	}
	return f, nil
}

// resolve gives a lock that answers the node, without writing it: the one on
// disk if it does, else that one with the role's entry made anew.
func resolve(ctx context.Context, o Options, n *spec.Node, s *source.Set) (*lock.File, error) {
	locked, err := readLock(o)
	if err != nil {
		return nil, err
	}
	asked := plan.Ask(n)
	moves, err := lock.Moves(o.Move, asked)
	if err != nil {
		return nil, err
	}
	name := lock.Name(n.Role, n.Arch)
	if len(o.Move) == 0 && len(locked.Stale(name, asked)) == 0 {
		return locked, nil
	}
	defer o.Report.Stage("pinning the inputs of " + name)()
	return locked, fault.Wrap(fault.Fetch, locked.Resolve(ctx, name, asked, moves, resolver{s, n}))
}

// resolver hands each request to the source that answers it. An image without a
// tag takes the one that the chosen kubeadm names.
type resolver struct {
	set  *source.Set
	node *spec.Node
}

var _ lock.Resolver = resolver{}

// Resolve implements lock.Resolver.
func (r resolver) Resolve(ctx context.Context, req lock.Request) ([]lock.Pin, error) {
	switch req.Kind {
	case lock.KindBase:
		return r.set.ResolveBase(ctx, req)
	case lock.KindImage:
		if req.Version == "" {
			c, err := r.set.Constants(ctx, req.Source, r.node.Kubernetes.Version)
			if err != nil {
				return nil, err
			}
			if req.Version = c.Tag(req.Name); req.Version == "" {
				return nil, fmt.Errorf("kubeadm names no tag for the image %s", req.Name)
			}
			req.Args = nil
		}
		req.Name += ":" + req.Version
	}
	return r.set.Resolve(ctx, []lock.Request{req})
}

// gathered is what is pinned, at hand: the base's tree, executables and container images.
type gathered struct {
	base   *tree.Tree
	parts  parts
	images rootfs.Images
}

func gather(ctx context.Context, o Options, arch string, pins []lock.Pin, s *source.Set) (g *gathered, err error) {
	defer func() {
		if errors.Is(err, fetch.ErrOffline) {
			err = fmt.Errorf("%w: run `imgbuild fetch %s` with the network on first", err, o.Role)
		}
		err = fault.Wrap(fault.Fetch, err)
	}()
	g = &gathered{parts: parts{}}
	images := onBoard{set: s, key: imagesKey(arch, pins)}
	group, sub := errgroup.WithContext(ctx)
	group.Go(func() error {
		layers, err := s.Base(sub, pins)
		if err != nil {
			return err
		}
		group.Go(func() error { // not before: laying the base out takes one processor for longer than the rest
			_, _ = images.kept() // checked here, beside the base: the store remembers it
			return nil
		})
		g.base, err = rootfs.Layers(layers)
		return err
	})
	group.Go(func() error {
		defer o.Report.Stage("gathering the Kubernetes parts")()
		files, err := s.Parts(sub, pins)
		for name, file := range files {
			g.parts[name] = file
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	defer o.Report.Stage("gathering the container images")()
	g.images, err = images.gather(ctx, pins, g.base)
	return g, err
}
