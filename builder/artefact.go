package builder

import (
	"context"
	"encoding/hex"
	"os"
	"strings"

	"github.com/imgbuild/imgbuild/builder/assemble"
	"github.com/imgbuild/imgbuild/builder/host"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// artefacts are what the outputs of one build are made of, in the making; what none
// of them needs is not made.
type artefacts struct {
	o       Options
	plan    *plan.Plan
	laid    *laid
	init    []byte // of the RAM disk
	scratch string
	cache   *store.Store
	needs   map[output.Artefact]bool

	disk    *sparse.Poured // nil: none is made
	payload *tree.Tree     // with the programs
	images  *tree.Tree     // with the container images
	host    *host.Node
	bills   []document // of materials
}

// made is the artefacts, and what the manifest says of them.
type made struct {
	output.Made
	disk assemble.Disk
}

// begin says what there is to be made, and who gets what on a host.
func begin(o Options, p *plan.Plan, l *laid, t *tools, scratch string, cache *store.Store) (*artefacts, error) {
	a := &artefacts{o: o, plan: p, laid: l, init: t.initrd, scratch: scratch, cache: cache}
	var err error
	if a.needs, err = output.Needed(p.Spec.Output.Formats); err != nil {
		return nil, err
	}
	if p.Spec.Host.Images && a.needs[output.Payload] { // a config names both
		a.needs[output.Images] = true
	}
	if a.needs[output.Payload] || a.needs[output.Images] || a.needs[output.Archive] {
		if err := a.place(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// place says who gets what on the host.
func (a *artefacts) place() error {
	name := a.plan.Spec.Host.OS
	if name == "" {
		name = host.Names()[0] // the payload is the same for all
	}
	os, err := host.Find(name)
	if err != nil {
		return err
	}
	if a.host, err = host.Of(a.plan, os); err != nil {
		return err
	}
	a.host.Join = a.o.join
	if a.payload, err = assemble.PayloadTree(a.plan, a.laid.root, a.host.Payload); err != nil {
		return err
	}
	a.images, err = assemble.ImageTree(a.plan, a.laid.root, a.host.Images)
	return err
}

// finish makes all of it: the root file system, the disk around it, the payloads.
func (a *artefacts) finish(ctx context.Context) (*made, error) {
	m := &made{}
	if a.needs[output.Disk] || a.needs[output.Netboot] {
		if err := a.seal(ctx, m); err != nil {
			return nil, err
		}
	}
	return m, a.extend(ctx, m)
}

// seal makes the root file system, and what boots it: by disk, by network.
func (a *artefacts) seal(ctx context.Context, m *made) error {
	done := a.o.Report.Stage("sealing the root file system")
	sealed, err := assemble.Seal(ctx, a.plan, a.laid.root, a.laid.kernel, a.init, a.scratch, a.cache)
	if err != nil {
		return err
	}
	a.disk = sealed.Disk()
	done()
	if a.needs[output.Netboot] {
		done = a.o.Report.Stage("assembling the image for network boot")
		if m.Netboot, err = assemble.Netboot(ctx, a.plan, a.laid.root, a.laid.kernel, sealed, a.scratch); err != nil {
			return err
		}
		done()
	}
	m.disk.RootHash = sealed.RootHash()
	if !a.needs[output.Disk] {
		return nil
	}
	done = a.o.Report.Stage("assembling the disk")
	disk, err := assemble.Build(ctx, a.plan, a.laid.root, a.laid.kernel, sealed)
	if err != nil {
		return err
	}
	m.disk, m.Disk = *disk, disk.Path
	if a.needs[output.Medium] {
		m.Medium, err = assemble.Medium(ctx, a.plan, a.laid.root, a.laid.kernel, sealed, a.scratch)
	}
	done()
	return err
}

// wait waits until all of the disk is written.
func (a *artefacts) wait() error {
	if a.disk == nil {
		return nil
	}
	return a.disk.Wait()
}

// close ends what is still being written.
func (a *artefacts) close() {
	if a.disk != nil {
		_ = a.disk.Close() // what was wrong with it was said
	}
}

// extend writes the payloads that are needed.
func (a *artefacts) extend(ctx context.Context, m *made) error {
	m.Host, m.Release, m.ID, m.Role, m.Arch, m.Version = a.host, a.plan.Spec.Host.Release, a.plan.ID, a.plan.Role, a.plan.Arch, a.plan.Spec.Kubernetes.Version
	for _, e := range []struct {
		artefact output.Artefact
		name     string
		tree     *tree.Tree
		file     *string
	}{{output.Payload, a.plan.Payload(), a.payload, &m.Payload}, {output.Images, a.plan.ImagePayload(), a.images, &m.Images}} {
		if !a.needs[e.artefact] {
			continue
		}
		done := a.o.Report.Stage("assembling " + e.name)
		from := host.Payload{Name: e.name, URL: strings.TrimSuffix(a.plan.Spec.Host.Payload, "/") + "/" + e.name + ".raw"}
		var err error
		if *e.file, from.RootHash, err = assemble.Extension(ctx, e.name, a.plan.Arch, e.tree, a.scratch, a.plan.Spec.Host.Verity, a.cache); err != nil {
			return err
		}
		if from.SHA256, err = digest(*e.file); err != nil {
			return err
		}
		m.From = append(m.From, from)
		done()
	}
	if !a.needs[output.Archive] {
		return nil
	}
	var err error
	m.Archive, err = assemble.Archive(a.plan.Payload(), a.payload, a.scratch)
	return err
}

func digest(file string) (string, error) {
	f, err := os.Open(file) // #nosec G304 -- our own scratch file
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	sum, _, err := sparse.SHA256(f)
	return hex.EncodeToString(sum), err
}
