// Package builder is the product as a library. This file is the flow, on one
// page: say → decide → do → check. The stages are the packages below; they know
// nothing of each other beyond the values that pass here.
package builder

import (
	"context"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/assemble"
	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/host"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/builder/source"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Options is one run of the flow, as the caller asks for it.
type Options struct {
	Role       string
	Files      []string // spec files over the role's profile, in order
	Sets       []string // "key.path=value" over those
	Host       string   // OS of the host that reads a config; over Sets; empty: what the spec says
	Out        string   // folder for everything that is written
	LockFile   string   // empty: imgbuild.lock in Out
	CacheDir   string   // empty: the XDG cache folder
	ToolDir    string   // where the node's own executables lie; empty: beside this program
	Offline    bool     // use no network: every input must be pinned and in the cache
	Sign       string   // private key that signs what is made: a PEM file, or PLUGIN://REFERENCE; empty: nothing is signed
	JoinURL    string   // where hosts fetch their node config; empty: a credential or a seed disk brings it
	InlineJoin string   // a worker's node config that is to stand in the configs for hosts
	Move       []string // what to pin anew although the lock answers: names of packages' base, parts or images, or "all"
	Report     report.Reporter

	node *spec.Node // what Load gives, instead of profile, files and sets
	join host.Join  // what loadJoin gives
}

// Result is what a build made.
type Result struct {
	Plan     *plan.Plan
	Manifest *Manifest
	Dir      string
}

// Build runs the whole flow and leaves the outputs, the manifest and the lock in
// the output folder. They appear whole, by rename, or not at all.
func Build(ctx context.Context, o Options) (*Result, error) {
	go self() //nolint:errcheck // read meanwhile: it is asked for soon
	// say
	node, key, err := o.hear(ctx)
	if err != nil {
		return nil, err
	}
	// decide
	tools, err := findTools(o.ToolDir, node.Arch)
	if err != nil {
		return nil, err
	}
	sources, err := openSources(o, node)
	if err != nil {
		return nil, err
	}
	pins, err := settle(ctx, o, node, sources)
	if err != nil {
		return nil, err
	}
	p, err := plan.Make(node, pins, tools.digests())
	if err != nil {
		return nil, err
	}
	if err := inTheWay(o, p); err != nil {
		return nil, err
	}
	if m := unchanged(o, p, key, sources.Store()); m != nil {
		o.Report.Note("nothing has changed since the last build: its outputs stay")
		return &Result{Plan: p, Manifest: m, Dir: o.Out}, nil
	}
	// do
	scratch, err := makeScratch(o.Out)
	if err != nil {
		return nil, err
	}
	defer scratch.remove()
	go release(o, p) // nothing depends on it
	root, err := layOut(ctx, o, p, sources, tools)
	if err != nil {
		return nil, err
	}
	a, err := begin(o, p, root, tools, scratch.path, sources.Store())
	if err != nil {
		return nil, err
	}
	defer a.close()
	var manifest *Manifest
	group, sub := errgroup.WithContext(ctx)
	group.Go(func() error {
		made, err := a.finish(ctx) // the disk is written longer than the group is at work
		if err == nil {
			manifest, err = writeOutputs(sub, o, p, made, a.wait, scratch.path)
		}
		return err
	})
	group.Go(func() error { return a.describe(sub) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := manifest.add(scratch.path, a.bills...); err != nil {
		return nil, err
	}
	// check
	if err := checkOutputs(ctx, o, manifest, a, scratch.path); err != nil {
		return nil, blame(err, sources.Store())
	}
	if err := attest(p, manifest, key, scratch.path); err != nil {
		return nil, err
	}
	if err := publish(o, p, manifest, scratch.path); err != nil {
		return nil, err
	}
	if err := vouch(o, p, manifest, key, sources.Store()); err != nil {
		o.Report.Note("the next build will not know that nothing changed: %v", err)
	}
	return &Result{Plan: p, Manifest: manifest, Dir: o.Out}, nil
}

// Fetch brings every pinned input into the cache, so that an Offline build finds
// it there, and returns the pins. It makes what is not pinned yet, as Build does.
func Fetch(ctx context.Context, o Options) ([]lock.Pin, error) {
	node, err := Load(o)
	if err != nil {
		return nil, err
	}
	sources, err := openSources(o, node)
	if err != nil {
		return nil, err
	}
	pins, err := settle(ctx, o, node, sources)
	if err != nil {
		return nil, err
	}
	_, err = gather(ctx, o, node.Arch, pins, sources)
	return pins, err
}

// Plan runs the flow up to the plan and writes nothing but the cache.
func Plan(ctx context.Context, o Options) (*plan.Plan, error) {
	node, err := Load(o)
	if err != nil {
		return nil, err
	}
	tools, err := findTools(o.ToolDir, node.Arch)
	if err != nil {
		return nil, err
	}
	sources, err := openSources(o, node)
	if err != nil {
		return nil, err
	}
	before, err := readLock(o)
	if err != nil {
		return nil, err
	}
	if why := stale(o, node, before); why != nil {
		o.Report.Note("a build would stop, this plan pins anew: %v", why)
	}
	locked, err := resolve(ctx, o, node, sources)
	if err != nil {
		return nil, err
	}
	return plan.Make(node, locked.Nodes[lock.Name(node.Role, node.Arch)].Pins, tools.digests())
}

// Lock runs the flow up to the lock: what is not pinned is pinned, and what Move
// names is pinned anew. Before the lock file is written, show hears what changes.
func Lock(ctx context.Context, o Options, show func([]lock.Change) error) (*lock.File, error) {
	node, err := Load(o)
	if err != nil {
		return nil, err
	}
	sources, err := openSources(o, node)
	if err != nil {
		return nil, err
	}
	release, err := lockAlone(ctx, o)
	if err != nil {
		return nil, err
	}
	defer release()
	before, err := readLock(o)
	if err != nil {
		return nil, err
	}
	locked, err := resolve(ctx, o, node, sources)
	if err != nil {
		return nil, err
	}
	name := lock.Name(node.Role, node.Arch)
	if err := show(lock.Changes(before.Nodes[name].Pins, locked.Nodes[name].Pins)); err != nil {
		return nil, err
	}
	return locked, writeFile(o.lockPath(), locked.Bytes())
}

func (o Options) lockPath() string {
	if o.LockFile != "" {
		return o.LockFile
	}
	return filepath.Join(o.Out, lock.FileName)
}

// laid is the root file system as a tree, the kernel that was in it, and which
// container image each folder of layers came with.
type laid struct {
	root   *tree.Tree
	kernel rootfs.Kernel
	images map[string]string
}

func layOut(ctx context.Context, o Options, p *plan.Plan, s *source.Set, t *tools) (*laid, error) {
	g, err := gather(ctx, o, p.Arch, p.Inputs, s)
	if err != nil {
		return nil, err
	}
	g.parts[AgentPart] = tree.Bytes(t.firstboot)
	manifest, err := networkManifest(p.Spec.CNI.Manifest)
	if err != nil {
		return nil, err
	}
	g.parts[component.ManifestPart] = tree.Bytes(manifest)
	defer o.Report.Stage("laying out the root file system")()
	l := &laid{root: g.base}
	if l.kernel, err = rootfs.Seal(l.root); err != nil {
		return nil, err
	}
	if err := rootfs.CheckModules(l.root, l.kernel.Release, p.Spec.Boot.Modules); err != nil {
		return nil, err
	}
	if err := rootfs.LeaveOut(l.root, p, l.kernel.Release, assemble.Modules()); err != nil {
		return nil, err
	}
	if err := rootfs.Apply(l.root, p, g.parts); err != nil {
		return nil, err
	}
	l.images, err = rootfs.PlaceImages(l.root, g.images)
	return l, err
}
