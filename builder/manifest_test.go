package builder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
)

// notes keeps what it is told.
type notes struct {
	report.Discard
	all *[]string
}

func (n notes) Note(format string, args ...any) { *n.all = append(*n.all, format) }

// TestNameOfAnotherNode: outputs take the place of an earlier build's of the same node alone.
func TestNameOfAnotherNode(t *testing.T) {
	var said []string
	o := Options{Out: t.TempDir(), Report: notes{all: &said}}
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(o.Out, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &plan.Plan{Role: "worker", Arch: "amd64", ID: "new", Spec: &spec.Node{}}
	if err := inTheWay(o, p); err != nil {
		t.Error(err)
	}
	put("worker.manifest.json", `{"id":"old","role":"master","arch":"amd64"}`)
	if err := inTheWay(o, p); fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), "is of a master for amd64, and this is a worker for amd64") {
		t.Error(err)
	}
	put("worker.manifest.json", `{"id":"old","role":"worker","arch":"amd64","outputs":[{"file":"worker.qcow2"},{"file":"worker.raw"}]}`)
	put("worker.qcow2", "old")
	scratch := t.TempDir()
	if err := os.WriteFile(filepath.Join(scratch, "worker.raw"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := inTheWay(o, p); err != nil {
		t.Error(err)
	}
	if err := publish(o, p, &Manifest{ID: "new", Outputs: []Written{{File: "worker.raw"}}}, scratch); err != nil || len(said) != 1 || !strings.Contains(said[0], "of an earlier build") {
		t.Errorf("%v, said %q", err, said)
	}
}
