package cluster

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// guardRate is how often in a second a stranger knocks while nodes boot. Any port answers
// where there is no filter, so it need not be fast.
const guardRate = 100

// scanRate is how fast a stranger scans; an emulated node must keep up.
const scanRate = 4000

func (b *images) target(role string) kit.Target {
	return kit.Target{Role: role, IP: map[string]string{"master": kit.MasterIP, "worker": kit.WorkerIP}[role], Declared: b.plans[role].Ports}
}

// noWindow looks at what a stranger met from before power-on until both nodes were
// Ready: nothing but what is declared, and that on both addresses of both.
func (s *suite) noWindow(t *testing.T) {
	heard := s.boot
	for _, target := range s.targets() {
		if leaks := target.Leaks(heard); len(leaks) > 0 {
			t.Errorf("%s answered while it booted: %q", target.Role, leaks)
		}
		for _, p := range target.Probes("tcp", 10250) {
			if heard[p] == "" {
				t.Errorf("%s never answered at %s: the stranger did not reach it", target.Role, p.Addr)
			}
		}
	}
	t.Logf("%d knocks from power-on to Ready, %d ports answered", s.knocks, len(heard))
}

func (s *suite) targets() []kit.Target {
	return []kit.Target{s.images.target("master"), s.images.target("worker")}
}

// silentUDP are declared UDP ports whose listener says nothing to a stranger: the
// kernel's VXLAN, on IPv4 alone. Pods that reach each other show that it is open.
var silentUDP = map[bool][]string{true: {"8472"}, false: nil}

// everyPort scans all ports of TCP and those of interest of UDP: what answers, on IPv4
// and IPv6, is exactly what the plan declares. For the time of the scan the nodes tell of every
// closed UDP port, which they otherwise do once in a second.
func (s *suite) everyPort(t *testing.T) {
	const loud = "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000"
	for _, m := range s.nodes() {
		was := sh(t, m, "sysctl net.ipv4.icmp_ratelimit net.ipv6.icmp.ratelimit net.ipv4.icmp_msgs_per_sec net.ipv4.icmp_msgs_burst | tr -d ' '")
		sh(t, m, loud)
		defer sh(t, m, "sysctl -qw "+strings.Join(strings.Fields(was), " "))
	}
	var rows [4]string
	var both sync.WaitGroup
	s.c.Stranger.Forget()
	for i, target := range s.targets() {
		both.Go(func() {
			rows[2*i] = s.scan(t, target, "tcp")
			rows[2*i+1] = s.scan(t, target, "udp")
		})
	}
	both.Wait()
	t.Logf("\n| node | family | protocol | open | let in, nobody listens | declared, silent |\n|---|---|---|---|---|---|\n%s", strings.Join(rows[:], ""))
}

// scan wants one protocol's answers to be exactly the declared ports.
func (s *suite) scan(t *testing.T, target kit.Target, proto string) string {
	result, err := target.Scan(t.Context(), s.c.Stranger, proto, scanRate)
	if err != nil {
		t.Error(err)
		return ""
	}
	if leaks := target.Leaks(result.Heard); len(leaks) > 0 {
		t.Errorf("%s lets in what nobody declared: %q", target.Role, leaks[:min(len(leaks), 20)])
	}
	for _, addr := range target.Addrs() {
		var quiet []string
		if proto == "udp" {
			quiet = silentUDP[addr.Is4()]
		}
		if silent := result.Silent(addr); !slices.Equal(silent, quiet) {
			t.Errorf("%s keeps %s %q to itself at %s, want %q", target.Role, proto, silent, addr, quiet)
		}
	}
	return result.Rows()
}

// restart loads the rules again and again while a stranger knocks: there is no
// moment without them, nobody else's rules are touched, the network stays.
func (s *suite) restart(t *testing.T) {
	const others = "nft -j list tables | tr '}' '\\n' | grep -o '\"name\": \"[^\"]*\"' | sort; systemctl show -P ActiveEnterTimestampMonotonic systemd-networkd"
	before := map[string]string{}
	for role, m := range s.nodes() {
		before[role] = sh(t, m, others)
	}
	g := s.c.Guard(t.Context(), 12*guardRate, s.targets()...)
	s.onBoth(t, func(t *testing.T, _ string, m *boottest.Machine) {
		sh(t, m, "for i in 1 2 3 4 5 6; do systemctl restart imgbuild-firewall && systemctl reset-failed imgbuild-firewall && sleep 0.5 || exit 1; done")
	})
	_, err := g.Stop()
	must(t, err)
	heard := s.c.Stranger.Heard()
	for _, target := range s.targets() {
		if leaks := target.Leaks(heard); len(leaks) > 0 {
			t.Errorf("%s answered while its rules were loaded again: %q", target.Role, leaks)
		}
	}
	for role, m := range s.nodes() {
		if after := sh(t, m, others); after != before[role] {
			t.Errorf("%s: tables, and since when networkd runs, were\n%s\nand are\n%s", role, before[role], after)
		}
	}
	s.c.Stranger.Forget()
	s.scan(t, s.images.target("master"), "tcp") // the worker's turn comes at the end
}

// reset takes the worker out of the cluster, as kubeadm does it: the rules stay.
// What answers can only be less than before. It comes last: the node is no node
// any more.
func (s *suite) reset(t *testing.T) {
	g := s.c.Guard(t.Context(), guardRate, s.images.target("worker"))
	sh(t, s.c.Worker, "kubeadm reset -f >/run/reset.log 2>&1 || { cat /run/reset.log; exit 1; }")
	time.Sleep(5 * time.Second)
	_, err := g.Stop()
	must(t, err)
	target := s.images.target("worker")
	if leaks := target.Leaks(s.c.Stranger.Heard()); len(leaks) > 0 {
		t.Errorf("answered during kubeadm reset: %q", leaks)
	}
	sh(t, s.c.Worker, "! systemctl is-active -q kubelet && nft list chain inet imgbuild input | grep -q 'policy drop'")
	s.c.Stranger.Forget()
	if rows := s.scan(t, target, "tcp"); !strings.Contains(rows, "10250, 30000-32767") {
		t.Errorf("the kubelet still runs:\n%s", rows)
	}
}

// tunnelled knocks through the pod network's tunnel, which knows no sender: what a
// stranger wraps does not get further than what he sends openly.
func (s *suite) tunnelled(t *testing.T) {
	mac := sh(t, s.c.Master, "cat /sys/class/net/flannel.1/address")
	s.c.Stranger.Forget()
	must(t, s.c.Stranger.KnockThrough(t.Context(), vnet.VXLAN{ID: 1, Port: 8472, MAC: mac}, s.images.target("master").Probes("tcp", 22, 6443, 10249, 10256, 10257)[:5]))
	for p, answer := range s.c.Stranger.Heard() {
		if p.Port != 6443 {
			t.Errorf("%v is %s through the tunnel", p, answer)
		}
	}
	if len(s.c.Stranger.Heard()) != 1 {
		t.Errorf("%v answered through the tunnel, want the API alone: did the packets get there?", s.c.Stranger.Heard())
	}
}
