// Package capi boots images whose bootstrap is Cluster API's, with the bootstrap data
// that Cluster API's own code writes, and wants a cluster of them.
package capi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/iso9660"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// module is the version of Cluster API whose bootstrap data is taken.
const module = "sigs.k8s.io/cluster-api@v1.13.0"

const masterIP, workerIP = "10.0.0.10", "10.0.0.20"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

// site is a network for the machines of one cluster.
type site struct {
	*kit.Site
	images map[string]string
	plans  map[string]*plan.Plan
	data   string // the folder of the bootstrap data
}

// TestClusterAPI makes a control plane and, once that answers as it does where Cluster
// API makes machines, a worker, by each format that the data has.
func TestClusterAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines, twice: left out by -short")
	}
	for _, format := range []string{"cloud-config", "ignition"} {
		t.Run(format, func(t *testing.T) { newSite(t, format).cluster(t) })
	}
}

// newSite builds the images as docs/cloud-init.md shows, and has the data written.
func newSite(t *testing.T, format string) *site {
	s := &site{Site: kit.NewSite(t), images: map[string]string{}, plans: map[string]*plan.Plan{}}
	lines, err := kit.Commands("../../docs/cloud-init.md")
	kit.Must(t, err)
	for _, args := range lines {
		if !slices.Contains(args, "bootstrap=cluster-api") {
			continue
		}
		role := args[0]
		s.images[role], err = s.Image(t.Context(), role, "raw", args[1:]...)
		kit.Must(t, err)
		text, err := s.Imgbuild(t.Context(), append([]string{"plan", "-o", filepath.Join(s.Dir, "out"), "--output", "json"}, args...)...)
		kit.Must(t, err)
		s.plans[role] = &plan.Plan{}
		kit.Must(t, json.Unmarshal([]byte(text), s.plans[role]))
	}
	spec := s.plans["master"].Spec
	s.data = bootstrapData(t, s.Dir, format, masterIP+":6443", spec.Kubernetes.Version, spec.Kubernetes.PodCIDR,
		"kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f /etc/imgbuild/manifests/flannel.yaml")
	return s
}

func (s *site) cluster(t *testing.T) {
	const succeeded = "grep -qx success /run/cluster-api/bootstrap-success.complete"
	master := s.boot(t, "master", masterIP, 3328)
	s.Until(t, limit, "the control plane's bootstrap has succeeded", master, succeeded)
	ready := func(name string) {
		s.Until(t, limit, name+" is Ready", master, "kubectl get node capi-"+name+` -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}' | grep -qx True`)
	}
	ready("master")
	const allRun = `kubectl get pods -A --no-headers | awk '$4 != "Running" {bad=1} END {exit bad}'`
	s.Until(t, limit, "its pods run", master, allRun) // the worker's bootstrap is tried once: it needs processors that are free
	worker := s.boot(t, "worker", workerIP, 2048)
	kit.Must(t, worker.Yield(t.Context(), 10)) // nobody calms its master's probes, as imgbuild's own agent does
	s.Until(t, limit, "the worker's bootstrap has succeeded", worker, succeeded)
	ready("worker")
	s.Until(t, limit, "all pods run", master, allRun)
	for role, m := range map[string]*boottest.Machine{"master": master, "worker": worker} {
		var checks []boottest.Check
		for _, c := range s.plans[role].Checks {
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
	s.Told(t, "every check of both plans has been made")

	kit.Must(t, worker.PowerOff(t.Context()))
	worker = s.boot(t, "worker", workerIP, 2048)
	s.Until(t, limit, "after a reboot the worker has its name and its kubelet", worker, "[ $(hostname) = capi-worker ] && systemctl is-active -q kubelet && test -s /etc/kubernetes/kubelet.conf")
	s.Until(t, limit, "no second kubeadm has run", worker, "! test -e /run/cluster-api/bootstrap-success.complete && cloud-init status | grep -qx 'status: done'")
}

// notTheirs are checks of what imgbuild's own agent configures by kubeadm; here the
// kubeadm configuration is Cluster API's.
var notTheirs = map[string]bool{"the API server keeps an audit log": true}

// bootstrapData has Cluster API's own code write user data, in a copy of its module:
// the package that does is internal there.
func bootstrapData(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: "go", Args: []string{"mod", "download", "-json", module}, Dir: dir})
	kit.Must(t, err)
	var m struct{ Dir string }
	kit.Must(t, json.Unmarshal(out, &m))
	source, data := filepath.Join(dir, "cluster-api"), filepath.Join(dir, "data")
	kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "cp", Args: []string{"-r", "--no-preserve=mode", m.Dir, source}}))
	program, err := os.ReadFile("testdata/bootdata.go.txt")
	kit.Must(t, err)
	where := filepath.Join(source, "bootstrap", "kubeadm", "internal", "bootdata")
	kit.Must(t, os.MkdirAll(where, 0o755))
	kit.Must(t, os.WriteFile(filepath.Join(where, "main.go"), program, 0o644))
	kit.Must(t, os.MkdirAll(data, 0o700))
	kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "go", Args: append(append([]string{"run", "./bootstrap/kubeadm/internal/bootdata"}, args...), data), Dir: source,
		Env: []string{"GOFLAGS=-mod=mod", "GOWORK=off"}, Stderr: os.Stderr}))
	return data
}

// boot starts a machine with its user data on a seed disk (data source NoCloud).
func (s *site) boot(t *testing.T, role, ip string, memory int) *boottest.Machine {
	t.Helper()
	user, err := os.ReadFile(filepath.Join(s.data, role+".user-data"))
	kit.Must(t, err)
	seed := filepath.Join(s.Dir, role+".iso")
	if err := os.Remove(seed); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	kit.Must(t, iso9660.Write(seed, "cidata", map[string][]byte{"user-data": user,
		"meta-data": []byte("instance-id: i-" + role + "\nlocal-hostname: capi-" + role + "\n")}))
	m := s.Start(t, boottest.Node{Name: role, Image: s.images[role], IP: ip, Memory: memory, CPUs: 2, Extra: []string{seed}})
	s.Told(t, "%s is powered on", role)
	return m
}
