package kit

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/qemu"
)

// Pair is a master and a worker of one kind, and what their cluster says of both.
type Pair struct {
	Images string   // the folder that imgbuild wrote raw images of both roles into
	Arch   string   // of the images
	Args   []string // what imgbuild was told beside the role and the folder
	Info   string   // a field of a node's nodeInfo, such as architecture ...
	Want   string   // ... and its value
	Via    string   // how the master gets its config
	Limit  time.Duration
}

// Pair boots both, waits for a cluster of two Ready nodes whose pods run, and has each node answer the checks of its plan.
func (s *Site) Pair(t *testing.T, p Pair) {
	t.Helper()
	boot := func(role, ip, via string, memory int) *boottest.Machine {
		return s.Start(t, boottest.Node{Name: role, Arch: p.Arch, Image: filepath.Join(p.Images, role+arch.Suffix(p.Arch)+".raw"), IP: ip, Memory: memory, CPUs: 2,
			Config: s.Config(t, role+".yaml"), Via: via})
	}
	master := boot("master", MasterIP, p.Via, 3328)
	ready := func(m *boottest.Machine) {
		node, err := m.Sh(t.Context(), "cat /proc/sys/kernel/hostname")
		Must(t, err)
		s.Until(t, p.Limit, node+" is Ready", master, fmt.Sprintf(
			`kubectl get node %s -o jsonpath='{.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.%s}' | grep -qx 'True %s'`, node, p.Info, p.Want))
	}
	const member = `grep -q '"phase": "committed"' /run/imgbuild/status.json`
	s.Until(t, p.Limit, "the master has made its cluster", master, member)
	ready(master)
	worker := boot("worker", WorkerIP, qemu.SMBIOS, 2048)
	s.Until(t, p.Limit, "the worker has joined", worker, member)
	ready(worker)
	s.Until(t, p.Limit, "all pods run", master, `kubectl get pods -A --no-headers | awk '$4 != "Running" {bad=1} END {exit bad}'`)
	for role, m := range map[string]*boottest.Machine{"master": master, "worker": worker} {
		for _, r := range boottest.RunChecks(t.Context(), m, s.checks(t, p, role)) {
			if !r.OK {
				t.Errorf("%s: %s: %s: %v\n%s", role, r.Name, r.Command, r.Err, r.Output)
			}
		}
	}
}

// checks are those that a role's plan carries.
func (s *Site) checks(t *testing.T, p Pair, role string) (out []boottest.Check) {
	t.Helper()
	text, err := s.Imgbuild(t.Context(), append([]string{"plan", role, "-o", p.Images, "--format", "raw", "--output", "json"}, p.Args...)...)
	Must(t, err)
	var made plan.Plan
	Must(t, json.Unmarshal([]byte(text), &made))
	if len(made.Checks) == 0 {
		t.Errorf("the plan of the %s has no checks", role)
	}
	for _, c := range made.Checks {
		out = append(out, boottest.Check{Name: c.Name, Command: c.Command})
	}
	return out
}
