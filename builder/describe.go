package builder

import (
	"context"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/builder/bill"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// signatureEnding is what a signature's file is called beyond what it signs.
const signatureEnding = ".sig"

// loadKey reads the signing key that was asked for; nil is none.
func loadKey(ctx context.Context, o Options) (*bill.Key, error) {
	if o.Sign == "" {
		return nil, nil
	}
	key, err := bill.LoadKey(ctx, o.Sign)
	return key, fault.Wrap(fault.Usage, err)
}

// describe makes both bills of materials.
func (a *artefacts) describe(ctx context.Context) error {
	defer a.o.Report.Stage("listing what is in the image")()
	p := a.plan
	image := bill.Image{Plan: p, Version: rootfs.Version(p), Root: a.laid.root, Containers: a.laid.images}
	if !a.needs[output.Disk] && !a.needs[output.Netboot] {
		image.Payload = tree.New()
		for part, needed := range map[*tree.Tree]bool{a.payload: a.needs[output.Payload] || a.needs[output.Archive], a.images: a.needs[output.Images]} {
			if !needed {
				continue
			}
			if err := image.Payload.Graft(".", part); err != nil {
				return err
			}
		}
	}
	b, err := bill.Make(ctx, image, bill.Sums{Store: a.cache})
	if err != nil {
		return err
	}
	spdx, err := b.SPDX()
	if err != nil {
		return err
	}
	cyclonedx, err := b.CycloneDX()
	a.bills = []document{{"spdx", p.Name() + ".spdx.json", spdx}, {"cyclonedx", p.Name() + ".cdx.json", cyclonedx}}
	return err
}

// attest writes the statement about all that was made, and signs all of it.
func attest(p *plan.Plan, m *Manifest, key *bill.Key, scratch string) error {
	var subjects []bill.Subject
	for _, w := range m.files() {
		subjects = append(subjects, bill.SHA256(w.File, w.SHA256))
	}
	statement, err := bill.Provenance(p, subjects)
	if err != nil {
		return err
	}
	if err := m.add(scratch, document{"provenance", p.Name() + ".intoto.json", statement}); err != nil || key == nil {
		return err
	}
	envelope, err := key.Envelope(statement)
	if err != nil {
		return err
	}
	if err := m.add(scratch, document{"dsse", p.Name() + envelopeEnding, envelope}); err != nil {
		return err
	}
	for _, w := range append(m.files(), measured("", p.Name()+manifestEnding, m.text())) {
		signature, err := key.Sign(w.SHA256)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(scratch, w.File+signatureEnding), signature, 0o644); err != nil { // #nosec G306 -- public
			return err
		}
	}
	return nil
}
