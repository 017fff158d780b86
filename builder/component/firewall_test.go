package component_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/run"
)

const firewallFile = "/etc/imgbuild/firewall.nft"

// firewallCases are nodes with all that may stand in the rules.
var firewallCases = map[string][]string{
	"flannel on vxlan":   nil,
	"flannel on host-gw": {"cni.backend=host-gw"},
	"no pod network":     {"cni.name=none"},
	"calico on IP in IP": calico,
	"cilium on vxlan":    cilium,
	"ssh and ports":      {"ssh.enabled=true", "firewall.allow=tcp/9100,udp/40000-40100"},
}

var (
	openPort = regexp.MustCompile(`(?m)^\s*((?:(?:tcp|udp) dport|meta l4proto) [0-9-]+) accept`)
	podLink  = regexp.MustCompile(`(?m)^\s*iifname "([^"]+)" accept`)
	accepts  = regexp.MustCompile(`(?m)^.* accept.*$`)
)

// open is what the rules let in by port, sorted.
func open(text string) []string {
	var out []string
	for _, m := range openPort.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return out
}

// TestOpenPorts holds what the rules let in against a list of its own.
func TestOpenPorts(t *testing.T) {
	worker := []string{"tcp dport 10250", "tcp dport 30000-32767", "udp dport 30000-32767"}
	master := append([]string{"tcp dport 2379-2380", "tcp dport 6443", "meta l4proto 112"}, worker...)
	for _, c := range []struct {
		role string
		sets []string
		want []string
	}{
		{"worker", nil, append([]string{"udp dport 8472"}, worker...)},
		{"master", nil, append([]string{"udp dport 8472"}, master...)},
		{"worker", firewallCases["flannel on host-gw"], worker},
		{"master", firewallCases["no pod network"], master},
		{"worker", firewallCases["calico on IP in IP"], append([]string{"tcp dport 179", "meta l4proto 4", "tcp dport 5473", "udp dport 51820-51821"}, worker...)},
		{"worker", firewallCases["cilium on vxlan"], append([]string{"udp dport 8472", "tcp dport 4240", "tcp dport 4244"}, worker...)},
		{"worker", firewallCases["ssh and ports"], append([]string{"udp dport 8472", "tcp dport 22", "tcp dport 9100", "udp dport 40000-40100"}, worker...)},
	} {
		want := slices.Sorted(slices.Values(c.want))
		if diff := cmp.Diff(want, open(file(decide(t, c.role, c.sets...), firewallFile).Text)); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", c.role, c.sets, diff)
		}
	}
}

func TestRulesTouchNothingElse(t *testing.T) {
	for name, sets := range firewallCases {
		text := file(decide(t, "master", sets...), firewallFile).Text
		for _, never := range []string{"flush ruleset", "hook forward", "hook output", "delete table ip ", "table ip "} {
			if strings.Contains(text, never) {
				t.Errorf("%s: the rules hold %q", name, never)
			}
		}
		for _, always := range []string{"policy drop", "\t\tdrop comment", `iif "lo" accept`, "delete table inet imgbuild"} {
			if !strings.Contains(text, always) {
				t.Errorf("%s: the rules lack %q", name, always)
			}
		}
		var pods []string
		for _, m := range podLink.FindAllStringSubmatch(text, -1) {
			pods = append(pods, m[1])
		}
		want := map[string][]string{"no pod network": nil, "calico on IP in IP": {"cali*"}, "cilium on vxlan": {"lxc*", "cilium_host", "cilium_net"}}
		if w, ok := want[name]; !ok && !slices.Equal(pods, []string{"cni0"}) || ok && !slices.Equal(pods, w) {
			t.Errorf("%s: pods come in by %q", name, pods)
		}
	}
}

// TestNoAcceptIsUnconditional wants every accept to name what it accepts.
func TestNoAcceptIsUnconditional(t *testing.T) {
	for _, line := range accepts.FindAllString(file(decide(t, "master"), firewallFile).Text, -1) {
		if strings.HasPrefix(strings.TrimSpace(line), "accept") || strings.Contains(line, "policy accept") {
			t.Errorf("lets everything in: %s", line)
		}
	}
}

// TestNftTakesTheRules asks the real nft, which changes nothing under -c.
func TestNftTakesTheRules(t *testing.T) {
	if _, err := run.Look("nft"); err != nil {
		t.Skip("the host has no nft")
	}
	if os.Geteuid() != 0 {
		t.Skip("nft -c needs root, to ask the kernel")
	}
	check := func(text string) error {
		rules := filepath.Join(t.TempDir(), "firewall.nft")
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return run.Run(context.Background(), run.Cmd{Name: "nft", Args: []string{"-c", "-f", rules}})
	}
	if err := check("table inet imgbuild_probe { }\n"); err != nil {
		t.Skipf("nft cannot ask this kernel: %v", err)
	}
	for _, role := range []string{"master", "worker"} {
		for name, sets := range firewallCases {
			text := file(decide(t, role, sets...), firewallFile).Text
			if err := check(text); err != nil {
				t.Errorf("%s, %s: %v\n%s", role, name, err, text)
			}
		}
	}
	if check(strings.Replace(file(decide(t, "master"), firewallFile).Text, "dport 6443", "dport 66443", 1)) == nil {
		t.Error("nft takes port 66443: it checks nothing")
	}
}
