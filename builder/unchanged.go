package builder

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/imgbuild/imgbuild/builder/bill"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/store"
)

// unchanged is the manifest of an earlier build in the output folder when this
// build would give the same: the same plan by the same imgbuild, and outputs that
// nobody has touched since they were verified. Else it is nil.
func unchanged(o Options, p *plan.Plan, key *bill.Key, s *store.Store) *Manifest {
	m := o.earlier(p)
	word, err := vouchKey(o, p, key)
	if m == nil || err != nil || m.ID != p.ID || len(m.Outputs) != len(p.Outputs) {
		return nil
	}
	for _, w := range m.Outputs {
		if !slices.ContainsFunc(p.Outputs, func(out plan.Output) bool { return out.File == w.File }) {
			return nil
		}
	}
	for _, file := range published(o, p, m, key) {
		if !s.Vouched(file, word) {
			return nil
		}
	}
	return m
}

// vouch remembers what unchanged asks for.
func vouch(o Options, p *plan.Plan, m *Manifest, key *bill.Key, s *store.Store) error {
	word, err := vouchKey(o, p, key)
	if err != nil {
		return err
	}
	for _, file := range published(o, p, m, key) {
		if err := s.Vouch(file, word); err != nil {
			return err
		}
	}
	return nil
}

// published are all files that a build leaves in the output folder, the lock apart.
func published(o Options, p *plan.Plan, m *Manifest, key *bill.Key) []string {
	out := []string{o.manifestPath(p)}
	for _, w := range m.files() {
		out = append(out, filepath.Join(o.Out, w.File))
	}
	if key != nil {
		for _, file := range slices.Clone(out) {
			out = append(out, file+signatureEnding)
		}
	}
	return out
}

// vouchKey names everything that the outputs follow from: this very program, the
// plan, how it is written, the host that reads a config, and who signs.
func vouchKey(o Options, p *plan.Plan, key *bill.Key) (string, error) {
	program, err := self()
	if err != nil {
		return "", err
	}
	outputs, err := json.Marshal([]any{p.Outputs, p.Spec.Host, joinKey(o.join)}) // the plan's id is the node's alone
	signer := "nobody"
	if key != nil {
		signer = key.Name()
	}
	return fmt.Sprintf("output %x %s %s %s", program, p.ID, outputs, signer), err
}

// self is the SHA-256 of this program.
var self = sync.OnceValues(func() ([]byte, error) {
	f, err := os.Open("/proc/self/exe") // what was started, whatever has its name by now
	if err != nil {
		file, err := executable()
		if err != nil {
			return nil, err
		}
		if f, err = os.Open(file); err != nil { // #nosec G304 -- this program
			return nil, err
		}
	}
	defer f.Close() //nolint:errcheck // read only
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return sum.Sum(nil), err
})

func (o Options) manifestPath(p *plan.Plan) string {
	return filepath.Join(o.Out, p.Name()+manifestEnding)
}
