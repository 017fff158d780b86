package builder

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/store"
)

// unchanged is the manifest of an earlier build in the output folder when this
// build would give the same: the same plan by the same imgbuild, and outputs that
// nobody has touched since they were verified. Else it is nil.
func unchanged(o Options, p *plan.Plan, s *store.Store) *Manifest {
	text, err := os.ReadFile(o.manifestPath(p))
	if err != nil {
		return nil
	}
	var m Manifest
	key, err := vouchKey(p)
	if err != nil || json.Unmarshal(text, &m) != nil || m.ID != p.ID || len(m.Outputs) != len(p.Outputs) || !s.Vouched(o.manifestPath(p), key) {
		return nil
	}
	for _, w := range m.Outputs {
		if !slices.ContainsFunc(p.Outputs, func(out plan.Output) bool { return out.File == w.File }) || !s.Vouched(filepath.Join(o.Out, w.File), key) {
			return nil
		}
	}
	return &m
}

// vouch remembers what unchanged asks for.
func vouch(o Options, p *plan.Plan, m *Manifest, s *store.Store) error {
	key, err := vouchKey(p)
	if err != nil {
		return err
	}
	for _, w := range m.Outputs {
		if err := s.Vouch(filepath.Join(o.Out, w.File), key); err != nil {
			return err
		}
	}
	return s.Vouch(o.manifestPath(p), key)
}

// vouchKey names everything that the outputs follow from: this very program, the
// plan, and how it is written.
func vouchKey(p *plan.Plan) (string, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer self.Close() //nolint:errcheck // read only
	sum := sha256.New()
	if _, err := io.Copy(sum, self); err != nil {
		return "", err
	}
	outputs, err := json.Marshal(p.Outputs)
	return fmt.Sprintf("output %x %s %s", sum.Sum(nil), p.ID, outputs), err
}

func (o Options) manifestPath(p *plan.Plan) string {
	return filepath.Join(o.Out, p.Name()+".manifest.json")
}
