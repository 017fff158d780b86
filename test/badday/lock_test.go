package badday

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestDamagedLock takes pins out of the lock, doubles and edits them, each in turn.
func TestDamagedLock(t *testing.T) {
	const name = "a pin of the lock lost, doubled or edited"
	good(t)
	text, err := os.ReadFile(lockFile())
	if err != nil {
		t.Fatal(err)
	}
	read := func() *lock.File {
		var f lock.File
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		return &f
	}
	ways := []struct {
		what   string
		damage func(pins []lock.Pin, i int) []lock.Pin
	}{
		{"lost", func(pins []lock.Pin, i int) []lock.Pin { return append(pins[:i], pins[i+1:]...) }},
		{"doubled", func(pins []lock.Pin, i int) []lock.Pin { return append(pins, pins[i]) }},
		{"of another version", func(pins []lock.Pin, i int) []lock.Pin { pins[i].Version += ".1"; return pins }},
		{"of another name", func(pins []lock.Pin, i int) []lock.Pin { pins[i].Name += "x"; return pins }},
		{"of another size", func(pins []lock.Pin, i int) []lock.Pin { pins[i].Size++; return pins }},
	}
	n := len(read().Nodes["worker"].Pins)
	order := rand.New(rand.NewPCG(20261127, 1)).Perm(n)
	hurt := filepath.Join(t.TempDir(), "imgbuild.lock")
	for _, way := range ways {
		for _, i := range order[:times(2, n)] {
			f := read()
			entry := f.Nodes["worker"]
			pin := entry.Pins[i]
			entry.Pins = way.damage(entry.Pins, i)
			f.Nodes["worker"] = entry
			if err := os.WriteFile(hurt, f.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			said, err := build(t.Context(), out, "", "--offline", "--lock", hurt)
			named := way.what != "lost" || pin.Kind == lock.KindBase || strings.Contains(complaint(said), pin.Request)
			held(t, name, exitCode(err) == 4 && named && strings.Contains(complaint(said), "imgbuild lock worker"), "%s %s %s: %v: %s", pin.Kind, pin.Name, way.what, err, complaint(said))
		}
	}
}

// TestTwoFirstLocks pins both roles at once in one folder: the lock holds both, and
// what both ask for is the same.
func TestTwoFirstLocks(t *testing.T) {
	const name = "two first runs at once in one folder"
	good(t)
	for range times(1, 10) {
		out := t.TempDir()
		var wg sync.WaitGroup
		said := make([]strings.Builder, 2)
		errs := make([]error, 2)
		for i, role := range []string{"master", "worker"} {
			wg.Go(func() {
				errs[i] = run.Run(t.Context(), run.Cmd{Name: filepath.Join(tools.Bin, "imgbuild"), Args: []string{"lock", role, "-o", out}, Stderr: &said[i], Quiet: true})
			})
		}
		wg.Wait()
		var f lock.File
		text, err := os.ReadFile(filepath.Join(out, lock.FileName))
		if err == nil {
			err = json.Unmarshal(text, &f)
		}
		pins := map[string]string{}
		differ := 0
		for _, role := range []string{"master", "worker"} {
			for _, p := range f.Nodes[role].Pins {
				key := fmt.Sprint(p.Kind, p.Request, p.Name)
				if was, ok := pins[key]; ok && was != p.Digest {
					differ++
				}
				pins[key] = p.Digest
			}
		}
		held(t, name, err == nil && errs[0] == nil && errs[1] == nil && len(f.Nodes) == 2 && differ == 0,
			"%v, %v, %v: %d roles in the lock, %d pins differ\n%s\n%s", err, errs[0], errs[1], len(f.Nodes), differ, &said[0], &said[1])
	}
}

// TestPlanOfStaleLock shows what would be pinned, says that a build would stop, and
// leaves the lock as it is.
func TestPlanOfStaleLock(t *testing.T) {
	good(t)
	before, err := os.ReadFile(lockFile())
	if err != nil {
		t.Fatal(err)
	}
	var said, shown strings.Builder
	err = run.Run(t.Context(), run.Cmd{Name: filepath.Join(tools.Bin, "imgbuild"), Args: []string{"plan", "worker", "-o", t.TempDir(), "--lock", lockFile(), "--set", "base.packages=tree"}, Stderr: &said, Stdout: &shown, Quiet: true})
	if err != nil || !strings.Contains(said.String(), "a build would stop") || !strings.Contains(said.String(), "`imgbuild lock worker`") || !strings.Contains(shown.String(), "inputs: ") {
		t.Errorf("%v: %s\n%s", err, &said, &shown)
	}
	if after, err := os.ReadFile(lockFile()); err != nil || string(after) != string(before) {
		t.Errorf("the lock is another one: %v", err)
	}
}
