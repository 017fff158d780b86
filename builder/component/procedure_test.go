package component_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/component"
)

// procedure is what a person does by hand on every live node, step by step, and
// what asks a booted node for it: checks of the plan, by role, and subtests of
// test/cluster.
var procedure = []struct {
	step           string
	master, worker []string // checks
	cluster        []string // subtests
}{
	{step: "a container runtime with the CRI on", master: []string{"the CRI answers"}, worker: []string{"the CRI answers"}, cluster: []string{"pods and services"}},
	{step: "br_netfilter is loaded, after a reboot too", master: []string{"modules"}, worker: []string{"modules"}, cluster: []string{"cold boot", "checks"}},
	{step: "bridge sysctls and forwarding", master: []string{"bridge traffic is filtered", "forwarding"}, worker: []string{"bridge traffic is filtered", "forwarding"}, cluster: []string{"cold boot"}},
	{step: "the firewall's ports", master: []string{"input is denied by default", "no other input filter", "tcp 6443 is open", "tcp 2379 is open", "tcp 10250 is open", "tcp 30000 is open"},
		worker: []string{"input is denied by default", "no other input filter", "tcp 10250 is open", "udp 30000 is open"}, cluster: []string{"from outside", "every port", "no window at boot", "firewall restarts", "kubeadm reset keeps the rules"}},
	{step: "the API answers on loopback too", cluster: []string{"from outside"}},
	{step: "no swap", master: []string{"no swap"}, worker: []string{"no swap"}, cluster: []string{"preflight is clean"}},
	{step: "kubeadm, kubelet and kubectl", master: []string{"kubeadm has the asked version", "the kubelet is healthy"}, worker: []string{"kubeadm has the asked version", "the kubelet is healthy"}},
	{step: "runtime and kubelet agree on the cgroup driver", master: []string{"containerd uses systemd cgroups", "the kubelet uses systemd cgroups", "cgroup v2"},
		worker: []string{"containerd uses systemd cgroups", "the kubelet uses systemd cgroups", "cgroup v2"}},
	{step: "kubeadm init", master: []string{"first boot is done"}, cluster: []string{"preflight is clean"}},
	{step: "no join line to copy", worker: []string{"first boot is done"}, cluster: []string{"nothing secret lies about"}},
	{step: "admin.conf for root, a kubeconfig for the operator", master: []string{"root has a kubeconfig"}, cluster: []string{"from outside"}},
	{step: "a pod network", cluster: []string{"pods and services"}},
	{step: "/run/flannel/subnet.env is there", master: []string{"flannel has a subnet"}, worker: []string{"flannel has a subnet"}},
	{step: "VXLAN checksums are not offloaded", master: []string{"VXLAN checksums are not offloaded"}, worker: []string{"VXLAN checksums are not offloaded"}},
	{step: "kubeadm join", worker: []string{"first boot is done"}, cluster: []string{"preflight is clean"}},
	{step: "the pod network's packets pass the firewall", cluster: []string{"pods and services", "webhook on the other node"}},
}

var subtest = regexp.MustCompile(`(?:t\.Run\(|\t{)"([^"]+)", (?:s\.|func)`)

// TestEveryStepOfTheProcedureIsAskedFor fails when a check or a subtest that
// stands for a step no longer exists.
func TestEveryStepOfTheProcedureIsAskedFor(t *testing.T) {
	var subtests []string
	sources, err := filepath.Glob("../../test/cluster/*_test.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no cluster test: %v", err)
	}
	for _, name := range sources {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range subtest.FindAllStringSubmatch(string(text), -1) {
			subtests = append(subtests, m[1])
		}
	}
	have := map[string][]string{"master": checkNames(t, "master"), "worker": checkNames(t, "worker"), "test/cluster": subtests}
	for _, row := range procedure {
		if len(row.master)+len(row.worker)+len(row.cluster) == 0 {
			t.Errorf("%s: nothing asks for it", row.step)
		}
		for where, names := range map[string][]string{"master": row.master, "worker": row.worker, "test/cluster": row.cluster} {
			for _, name := range names {
				if !slices.Contains(have[where], name) {
					t.Errorf("%s: %s has no %q any more", row.step, where, name)
				}
			}
		}
	}
}

func checkNames(t *testing.T, role string) []string {
	t.Helper()
	var out []string
	for _, c := range decide(t, role).Checks {
		out = append(out, c.Name)
	}
	return out
}

// TestChecksAreWellFormed wants each check to have a name of its own and a command
// of one line: they run one by one over a console.
func TestChecksAreWellFormed(t *testing.T) {
	for _, v := range variants {
		seen := map[component.Check]bool{}
		named := map[string]bool{}
		for _, c := range decide(t, v.role, v.sets...).Checks {
			if c.Name == "" || c.Command == "" || strings.Contains(c.Command, "\n") {
				t.Errorf("%s: %+v", v.name, c)
			}
			if named[c.Name] && !seen[c] {
				t.Errorf("%s: two checks are called %q", v.name, c.Name)
			}
			seen[c], named[c.Name] = true, true
		}
	}
}
