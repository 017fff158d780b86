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
	"github.com/imgbuild/imgbuild/internal/tree"
)

// artefacts are what the outputs of one build are made of, in the making; what none
// of them needs is not made.
type artefacts struct {
	o       Options
	plan    *plan.Plan
	laid    *laid
	scratch string
	needs   map[output.Artefact]bool

	sealed  *assemble.Sealed
	payload *tree.Tree
	host    *host.Node
}

// made is the artefacts, and what the manifest says of them.
type made struct {
	output.Made
	disk assemble.Disk
}

// begin does what does not depend on what the image holds being listed: the root file
// system of a disk, and who gets what on a host.
func begin(ctx context.Context, o Options, p *plan.Plan, l *laid, t *tools, scratch string) (*artefacts, error) {
	a := &artefacts{o: o, plan: p, laid: l, scratch: scratch}
	var err error
	if a.needs, err = output.Needed(p.Spec.Output.Formats); err != nil {
		return nil, err
	}
	if a.needs[output.Payload] {
		if err := a.place(); err != nil {
			return nil, err
		}
	}
	if !a.needs[output.Disk] {
		return a, nil
	}
	defer o.Report.Stage("sealing the root file system")()
	a.sealed, err = assemble.Seal(ctx, p, l.root, l.kernel, t.initrd, scratch)
	return a, err
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
	a.payload, err = assemble.PayloadTree(a.plan, a.laid.root, a.host.Payload)
	return err
}

// finish makes the rest: the disk around the root, the payload's file and its digest.
func (a *artefacts) finish(ctx context.Context) (*made, error) {
	m := &made{}
	if a.needs[output.Disk] {
		done := a.o.Report.Stage("assembling the disk")
		disk, err := assemble.Build(ctx, a.plan, a.laid.root, a.laid.kernel, a.sealed)
		if err != nil {
			return nil, err
		}
		m.disk, m.Disk = *disk, disk.Path
		done()
	}
	if !a.needs[output.Payload] {
		return m, nil
	}
	defer a.o.Report.Stage("assembling the payload")()
	var err error
	if m.Payload, err = assemble.Payload(ctx, a.plan, a.payload, a.scratch); err != nil {
		return nil, err
	}
	f, err := os.Open(m.Payload)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	sum, _, err := sparse.SHA256(f)
	h := a.plan.Spec.Host
	name := a.plan.Payload()
	m.Host, m.Release, m.ID = a.host, h.Release, a.plan.ID
	m.From = host.Payload{Name: name, URL: strings.TrimSuffix(h.Payload, "/") + "/" + name + ".raw", SHA256: hex.EncodeToString(sum)}
	return m, err
}
