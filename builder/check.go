package builder

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// checkOutputs reads the outputs back before they get their names.
func checkOutputs(ctx context.Context, o Options, p *plan.Plan, m *Manifest, scratch string) error {
	defer o.Report.Stage("verifying")()
	for _, w := range m.Outputs {
		r, err := verify.Image(ctx, filepath.Join(scratch, w.File))
		if err != nil {
			return fault.New(fault.Verify, "reading back: %w", err)
		}
		if r.RootHash != m.RootHash {
			return fault.New(fault.Verify, "%s: root hash %q, the build made %q", w.File, r.RootHash, m.RootHash)
		}
		if err := Complain(w.File, r); err != nil {
			return err
		}
	}
	return nil
}

// Complain turns a report's findings into one error, or nil.
func Complain(name string, r *verify.Report) error {
	if len(r.Findings) == 0 {
		return nil
	}
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, name+": "+f.String())
	}
	return fault.New(fault.Verify, "%s", strings.Join(lines, "\n"))
}
