package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// judgeModule is kube-bench's; its own configuration lies in it.
const judgeModule, judgeConfig = "github.com/aquasecurity/kube-bench", "cis-1.12"

// judgeDir is where the nodes put it, in memory; judgeAddr is where they get it.
const judgeDir, judgeAddr = "/run/kube-bench", boottest.Gateway + ":8099"

// rewrite is the part of an upgrade that writes the kubelet's configuration anew, with
// kubeadm's own modes, and the kubelet's new start.
const rewrite = "KUBECONFIG=/etc/kubernetes/kubelet.conf kubeadm upgrade node phase kubelet-config && systemctl restart kubelet && until systemctl is-active -q kubelet; do sleep 1; done"

// skips are the scored checks that may fail, each with why. Any other one that
// fails is an error, and so is one of these that passes: then it goes from here.
var skips = map[string]string{
	"1.1.12": "kubeadm runs etcd as root, so root owns its data",
	"1.2.5":  "kubelets sign their serving certificates themselves until an approver of the operator's signs them",
}

// targets are what kube-bench judges of a role.
var targets = map[string][]string{"master": {"master", "etcd", "node"}, "worker": {"node"}}

// scored is how many checks of each target kube-bench calls automated.
var scored = map[string]int{"master": 47, "etcd": 6, "node": 12}

// controls is kube-bench's answer.
type controls struct {
	Controls []struct {
		NodeType string `json:"node_type"`
		Tests    []struct {
			Results []finding `json:"results"`
		} `json:"tests"`
	}
}

type finding struct {
	Number string `json:"test_number"`
	Desc   string `json:"test_desc"`
	Status string `json:"status"`
	Scored bool   `json:"scored"`
	Actual string `json:"actual_value"`
	Reason string `json:"reason"`
}

// buildJudge compiles kube-bench and puts it, with its configuration, into a tar.
func buildJudge(ctx context.Context, k kit.Kit) (string, error) {
	dir := filepath.Join(k.Dir, "kube-bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, "kube-bench"), judgeModule}
	if err := run.Run(ctx, run.Cmd{Name: "go", Args: args, Dir: "../kubebench", Env: []string{"CGO_ENABLED=0"}}); err != nil {
		return "", err
	}
	module, err := run.Output(ctx, run.Cmd{Name: "go", Args: []string{"list", "-m", "-f", "{{.Dir}}", judgeModule}, Dir: "../kubebench"})
	if err != nil {
		return "", err
	}
	archive := dir + ".tar"
	return archive, run.Run(ctx, run.Cmd{Name: "tar", Args: []string{"-cf", archive, "--mode=u+rwX", "--owner=0", "--group=0",
		"-C", dir, "kube-bench", "-C", strings.TrimSpace(string(module)), "cfg/config.yaml", "cfg/" + judgeConfig}})
}

// hardening has kube-bench judge both nodes, with the checks of its own cis-1.12.
func (s *suite) hardening(t *testing.T) {
	l, err := s.c.Net.Listen(judgeAddr)
	must(t, err)
	defer l.Close()
	go hand(l, s.images.judge)
	var mu sync.Mutex
	count := map[string]int{}
	s.onBoth(t, func(t *testing.T, role string, m *boottest.Machine) {
		sh(t, m, "mkdir -p "+judgeDir+" && tar -x -C "+judgeDir+" </dev/tcp/"+strings.Replace(judgeAddr, ":", "/", 1)+" && test -x "+judgeDir+"/kube-bench")
		sh(t, m, rewrite)
		defer sh(t, m, "rm -rf "+judgeDir)
		found := judged(t, m, targets[role]...)
		mu.Lock()
		defer mu.Unlock()
		for _, target := range targets[role] {
			n := 0
			for _, f := range found[target] {
				if f.Scored {
					n++
					count[verdict(t, role, f)]++
				}
			}
			if n != scored[target] {
				t.Errorf("%s: kube-bench has %d scored checks of %s, want %d", role, n, target, scored[target])
			}
		}
	})
	t.Logf("kube-bench %s on both nodes: %d scored checks pass, %d fail, %d are skips: %v", judgeConfig, count["passed"], count["failed"], count["skipped"], slices.Sorted(maps.Keys(skips)))
}

// verdict counts a finding, and reports one that is not as it should be.
func verdict(t *testing.T, role string, f finding) string {
	reason, skip := skips[f.Number]
	switch {
	case f.Status == "PASS" && skip:
		t.Errorf("%s: %s passes: it is no skip any more (%s)", role, f.Number, reason)
		return "passed"
	case f.Status == "PASS":
		return "passed"
	case skip:
		t.Logf("%s: %s %s: skipped: %s", role, f.Number, f.Desc, reason)
		return "skipped"
	}
	t.Errorf("%s: %s %s: %s: %s %s", role, f.Number, f.Desc, f.Status, f.Reason, f.Actual)
	return "failed"
}

// judged is what kube-bench finds on a node, by its target.
func judged(t *testing.T, m *boottest.Machine, targets ...string) map[string][]finding {
	t.Helper()
	text := sh(t, m, fmt.Sprintf("cd %s && PATH=$PATH:/usr/sbin KUBECONFIG=/etc/kubernetes/kubelet.conf ./kube-bench run --targets %s --benchmark %s --config-dir cfg --config cfg/config.yaml --json", judgeDir, strings.Join(targets, ","), judgeConfig))
	var c controls
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatalf("kube-bench on %s: %v\n%s", m.Name, err, text)
	}
	out := map[string][]finding{}
	for _, group := range c.Controls {
		for _, test := range group.Tests {
			out[group.NodeType] = append(out[group.NodeType], test.Results...)
		}
	}
	return out
}

// hand gives a file to everybody who connects.
func hand(l net.Listener, file string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return // closed
		}
		if f, err := os.Open(file); err == nil {
			_, _ = io.Copy(conn, f)
			_ = f.Close()
		}
		_ = conn.Close()
	}
}
