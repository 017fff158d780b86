package component_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// TestEveryBackendHasARow holds the spec's pod networks and backends against the
// table of what they ask of a node.
func TestEveryBackendHasARow(t *testing.T) {
	for _, name := range spec.Networks() {
		for _, backend := range append(spec.Backends(name), "no such backend") {
			_, ok := component.PodPorts(name, backend)
			if want := backend != "no such backend"; ok != want {
				t.Errorf("%s on %s is in the table: %v, want %v", name, backend, ok, want)
			}
		}
	}
}

func TestNetworkdLeavesThePodNetworkAlone(t *testing.T) {
	const name = "/usr/lib/systemd/network/60-imgbuild-foreign.network"
	for _, c := range []struct {
		sets       []string
		theirs     []string
		notByThese []string
	}{
		{nil, []string{"cni0", "flannel.1", "veth12345678"}, []string{"cali1234", "cilium_host", "eth0"}},
		{calico, []string{"cali0123456789a", "tunl0", "vxlan.calico", "wireguard.cali"}, []string{"flannel.1", "lxc1", "ens3"}},
		{cilium, []string{"cilium_host", "cilium_vxlan", "lxc_health", "lxc0123"}, []string{"cali1", "enp0s2"}},
		{[]string{"cni.name=none"}, []string{"flannel.1", "cali1", "lxc1", "cilium_net", "tunl0"}, []string{"eth0", "ens3", "wlan0"}},
	} {
		_, rest, _ := strings.Cut(file(decide(t, "worker", c.sets...), name).Text, "Name=")
		line, _, _ := strings.Cut(rest, "\n")
		leftAlone := func(link string) bool {
			return slices.ContainsFunc(strings.Fields(line), func(pattern string) bool { ok, _ := path.Match(pattern, link); return ok })
		}
		for _, link := range c.theirs {
			if !leftAlone(link) {
				t.Errorf("%v: networkd manages %s: Name=%s", c.sets, link, line)
			}
		}
		for _, link := range c.notByThese {
			if leftAlone(link) {
				t.Errorf("%v: networkd leaves %s alone: Name=%s", c.sets, link, line)
			}
		}
	}
}

func TestSettingsOfPodNetworks(t *testing.T) {
	for _, c := range []struct {
		sets            []string
		sysctl, modules []string
	}{
		{nil, []string{"net.ipv4.conf.all.rp_filter = 2"}, []string{"vxlan"}},
		{calico, []string{"net.ipv4.conf.all.rp_filter = 0", "net.ipv4.conf.default.rp_filter = 0"}, []string{"ipip", "wireguard"}},
		{cilium, []string{"net.ipv4.conf.all.rp_filter = 0", "net.ipv4.conf.lxc*.rp_filter = 0", "net.ipv4.conf.cilium_*.rp_filter = 0"}, []string{"vxlan"}},
	} {
		p := decide(t, "worker", c.sets...)
		for _, want := range c.sysctl {
			if !strings.Contains("\n"+file(p, "/usr/lib/sysctl.d/90-imgbuild.conf").Text, "\n"+want+"\n") {
				t.Errorf("%v: %q is missing", c.sets, want)
			}
		}
		for _, want := range c.modules {
			if !slices.Contains(strings.Fields(file(p, "/usr/lib/modules-load.d/imgbuild.conf").Text), want) {
				t.Errorf("%v: the module %s is not loaded", c.sets, want)
			}
		}
		if f := file(p, "/etc/imgbuild/manifests/calico.yaml"); (f.Part == component.ManifestPart) != slices.Contains(c.sets, "cni.name=calico") {
			t.Errorf("%v: the manifest is %+v", c.sets, f)
		}
	}
}
