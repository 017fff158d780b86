// Package arm64 builds nodes for another processor than the host's, pushes both
// architectures under one tag, and boots a cluster of the other one.
package arm64

import (
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/test/kit"
)

const arch = "arm64"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

// TestArm64 makes both architectures of a worker by one command, and a cluster of arm64.
func TestArm64(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	s := kit.NewSite(t)
	kit.Must(t, s.BuildTools(t.Context(), "../..", arch))
	kit.Must(t, s.Identity(t.Context()))
	images := filepath.Join(s.Dir, "out")
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, 0))))
	defer server.Close()
	tag := strings.TrimPrefix(server.URL, "http://") + "/nodes:1"
	_, err := s.Imgbuild(t.Context(), "worker", "-o", images, "--format", "raw", "--arch", "amd64,arm64", "--push", tag)
	kit.Must(t, err)
	_, err = s.Imgbuild(t.Context(), "master", "-o", images, "--format", "raw", "--arch", arch)
	kit.Must(t, err)
	if d := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms(t, tag)); d != "" {
		t.Errorf("the index: %s", d)
	}
	pulled := filepath.Join(s.Dir, "pulled")
	_, err = s.Imgbuild(t.Context(), "pull", tag, "-o", pulled, "--arch", arch)
	kit.Must(t, err)
	_, err = s.Imgbuild(t.Context(), "verify", filepath.Join(pulled, "worker-arm64.raw"))
	kit.Must(t, err)

	s.Slow(t, 0.25) // a foreign processor is slower yet than one's own, emulated
	boot := func(role, config, ip string, memory int) *boottest.Machine {
		return s.Start(t, boottest.Node{Name: role, Arch: arch, Image: filepath.Join(images, role+"-arm64.raw"), IP: ip, Memory: memory, CPUs: 2,
			Config: s.Config(t, config), Via: qemu.SMBIOS})
	}
	master := boot("master", "master.yaml", kit.MasterIP, 3328)
	ready := func(node string) {
		s.Until(t, limit, node+" is Ready", master, "kubectl get node "+node+` -o jsonpath='{.status.conditions[?(@.type=="Ready")].status} {.status.nodeInfo.architecture}' | grep -qx 'True arm64'`)
	}
	const member, host = `grep -q '"phase": "committed"' /run/imgbuild/status.json`, "cat /proc/sys/kernel/hostname"
	s.Until(t, limit, "the master has made its cluster", master, member)
	first, err := master.Sh(t.Context(), host)
	kit.Must(t, err)
	ready(first)
	worker := boot("worker", "worker.yaml", kit.WorkerIP, 2048)
	s.Until(t, limit, "the worker has joined", worker, member)
	second, err := worker.Sh(t.Context(), host)
	kit.Must(t, err)
	ready(second)
	s.Until(t, limit, "all pods run", master, `kubectl get pods -A --no-headers | awk '$4 != "Running" {bad=1} END {exit bad}'`)
	for role, m := range map[string]*boottest.Machine{"master": master, "worker": worker} {
		for _, r := range boottest.RunChecks(t.Context(), m, checks(t, s, role)) {
			if !r.OK {
				t.Errorf("%s: %s: %s: %v\n%s", role, r.Name, r.Command, r.Err, r.Output)
			}
		}
	}
	t.Logf("timeline:\n%s", s.Timeline())
}

// platforms are those of a tag's index.
func platforms(t *testing.T, tag string) (out []string) {
	t.Helper()
	ref, err := name.ParseReference(tag)
	kit.Must(t, err)
	index, err := remote.Index(ref)
	kit.Must(t, err)
	m, err := index.IndexManifest()
	kit.Must(t, err)
	for _, d := range m.Manifests {
		out = append(out, d.Platform.String())
	}
	slices.Sort(out)
	return out
}

// checks are those that a role's plan carries.
func checks(t *testing.T, s *kit.Site, role string) (out []boottest.Check) {
	t.Helper()
	text, err := s.Imgbuild(t.Context(), "plan", role, "-o", filepath.Join(s.Dir, "out"), "--format", "raw", "--arch", arch, "--output", "json")
	kit.Must(t, err)
	var p plan.Plan
	kit.Must(t, json.Unmarshal([]byte(text), &p))
	if len(p.Checks) == 0 {
		t.Errorf("the plan of the %s has no checks", role)
	}
	for _, c := range p.Checks {
		out = append(out, boottest.Check{Name: c.Name, Command: c.Command})
	}
	return out
}
