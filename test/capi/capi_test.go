// Package capi boots images whose bootstrap is Cluster API's, with the bootstrap data
// that Cluster API's own code writes, and wants a cluster of them.
package capi

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/iso9660"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// module is the version of Cluster API whose bootstrap data is taken.
const module = "sigs.k8s.io/cluster-api@v1.13.0"

const masterIP, workerIP = "10.0.0.10", "10.0.0.20"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

type site struct {
	kit    kit.Kit
	socket string
	began  time.Time
}

// TestClusterAPI makes a control plane and, once that answers as it does where Cluster
// API makes machines, a worker.
func TestClusterAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	s := newSite(t)
	plans := map[string]*plan.Plan{}
	images := map[string]string{}
	lines, err := kit.Commands("../../docs/cloud-init.md")
	must(t, err)
	for _, args := range lines {
		if !slices.Contains(args, "bootstrap=cluster-api") {
			continue
		}
		role := args[0]
		images[role], err = s.kit.Image(t.Context(), role, "raw", args[1:]...)
		must(t, err)
		text, err := s.kit.Imgbuild(t.Context(), append([]string{"plan", "-o", filepath.Join(s.kit.Dir, "out"), "--output", "json"}, args...)...)
		must(t, err)
		plans[role] = &plan.Plan{}
		must(t, json.Unmarshal([]byte(text), plans[role]))
	}
	spec := plans["master"].Spec
	data := bootstrapData(t, s.kit.Dir, masterIP+":6443", spec.Kubernetes.Version, spec.Kubernetes.PodCIDR,
		"kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f /etc/imgbuild/manifests/flannel.yaml")

	master := s.boot(t, "master", images["master"], data, masterIP, 3328)
	s.until(t, "the control plane's bootstrap has succeeded", master, "grep -qx success /run/cluster-api/bootstrap-success.complete")
	worker := s.boot(t, "worker", images["worker"], data, workerIP, 2048)
	must(t, worker.Yield(t.Context(), 5))
	s.until(t, "the worker's bootstrap has succeeded", worker, "grep -qx success /run/cluster-api/bootstrap-success.complete")
	for _, name := range []string{"master", "worker"} {
		s.until(t, name+" is Ready", master, "kubectl get node capi-"+name+` -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -qx True`)
	}
	s.until(t, "all pods run", master, `kubectl get pods -A --no-headers | awk '$4 != "Running" {bad=1} END {exit bad}'`)
	for role, m := range map[string]*boottest.Machine{"master": master, "worker": worker} {
		var checks []boottest.Check
		for _, c := range plans[role].Checks {
			if !notTheirs[c.Name] {
				checks = append(checks, boottest.Check{Name: c.Name, Command: c.Command})
			}
		}
		for _, r := range boottest.RunChecks(t.Context(), m, checks) {
			if !r.OK {
				t.Errorf("%s: %s: %s: %v\n%s", role, r.Name, r.Command, r.Err, r.Output)
			}
		}
	}

	must(t, worker.PowerOff(t.Context()))
	worker = s.boot(t, "worker", images["worker"], data, workerIP, 2048)
	s.until(t, "after a reboot the worker has its name and its kubelet", worker, "[ $(hostname) = capi-worker ] && systemctl is-active -q kubelet && test -s /etc/kubernetes/kubelet.conf")
	s.until(t, "no second kubeadm has run", worker, "! test -e /run/cluster-api/bootstrap-success.complete && cloud-init status | grep -qx 'status: done'")
}

// notTheirs are checks of what imgbuild's own agent configures by kubeadm; here the
// kubeadm configuration is Cluster API's.
var notTheirs = map[string]bool{"the API server keeps an audit log": true}

// bootstrapData has Cluster API's own code write user data, in a copy of its module:
// the package that does is internal there.
func bootstrapData(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: "go", Args: []string{"mod", "download", "-json", module}, Dir: dir})
	must(t, err)
	var m struct{ Dir string }
	must(t, json.Unmarshal(out, &m))
	source, data := filepath.Join(dir, "cluster-api"), filepath.Join(dir, "data")
	must(t, run.Run(t.Context(), run.Cmd{Name: "cp", Args: []string{"-r", "--no-preserve=mode", m.Dir, source}}))
	program, err := os.ReadFile("testdata/bootdata.go.txt")
	must(t, err)
	where := filepath.Join(source, "bootstrap", "kubeadm", "internal", "bootdata")
	must(t, os.MkdirAll(where, 0o755))
	must(t, os.WriteFile(filepath.Join(where, "main.go"), program, 0o644))
	must(t, os.MkdirAll(data, 0o700))
	must(t, run.Run(t.Context(), run.Cmd{Name: "go", Args: append(append([]string{"run", "./bootstrap/kubeadm/internal/bootdata"}, args...), data), Dir: source,
		Env: []string{"GOFLAGS=-mod=mod", "GOWORK=off"}, Stderr: os.Stderr}))
	return data
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{kit: kit.Kit{Bin: filepath.Join(dir, "bin"), Dir: dir, Said: os.Stderr}, began: time.Now()}
	must(t, s.kit.BuildTools(t.Context(), "../.."))
	scratch, err := os.MkdirTemp("", "imgbuild-net-") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(scratch) })
	s.socket = filepath.Join(scratch, "net.sock")
	net, err := vnet.Serve(vnet.Options{Subnet: boottest.Subnet, Gateway: boottest.Gateway}, s.socket)
	must(t, err)
	t.Cleanup(func() { _ = net.Close() })
	return s
}

// boot starts a machine with its user data on a seed disk (data source NoCloud).
func (s *site) boot(t *testing.T, role, image, data, ip string, memory int) *boottest.Machine {
	t.Helper()
	user, err := os.ReadFile(filepath.Join(data, role+".user-data"))
	must(t, err)
	seed := filepath.Join(s.kit.Dir, role+".iso")
	if err := os.Remove(seed); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	must(t, iso9660.Write(seed, "cidata", map[string][]byte{"user-data": user,
		"meta-data": []byte("instance-id: i-" + role + "\nlocal-hostname: capi-" + role + "\n")}))
	m, err := boottest.Start(t.Context(), boottest.Node{Name: role, Image: image, IP: ip, Memory: memory, CPUs: 2, Extra: []string{seed}},
		filepath.Join(s.kit.Dir, "machines"), s.socket, true)
	must(t, err)
	t.Cleanup(func() { _ = m.Kill() })
	s.told(t, "%s is powered on", role)
	return m
}

// until waits until a script succeeds in the machine, and tells when.
func (s *site) until(t *testing.T, stage string, m *boottest.Machine, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := m.Until(ctx, 3*time.Second, script); err != nil {
		log, _ := m.Sh(context.WithoutCancel(ctx), "cloud-init status --long; tail -50 /var/log/cloud-init-output.log; journalctl -b --no-pager -p warning | tail -40")
		t.Fatalf("%s: %v %s\n%s\n%s", stage, err, out, m.Tail(60), log)
	}
	s.told(t, "%s", stage)
}

func (s *site) told(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("%4.0f s  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
