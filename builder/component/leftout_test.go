package component_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
)

func leftOut(p *plan.Plan) (names []string) {
	for _, l := range p.LeftOut {
		names = append(names, l.Name)
	}
	return names
}

// TestKeep puts each thing back by its name, and finds all of them in the spec's list.
func TestKeep(t *testing.T) {
	if diff := cmp.Diff(spec.Keeps(), leftOut(decide(t, "worker"))); diff != "" {
		t.Error(diff)
	}
	for _, name := range spec.Keeps() {
		want := slices.DeleteFunc(spec.Keeps(), func(n string) bool { return n == name })
		if diff := cmp.Diff(want, leftOut(decide(t, "worker", "keep="+name))); diff != "" {
			t.Errorf("keep=%s: %s", name, diff)
		}
	}
	if got := leftOut(decide(t, "worker", "keep="+strings.Join(spec.Keeps(), ","))); len(got) > 0 {
		t.Errorf("all is kept, but %v", got)
	}
}

// TestLeftOutPrograms wants ctr asked for, and placed, only where it is kept.
func TestLeftOutPrograms(t *testing.T) {
	for _, keep := range []bool{false, true} {
		var sets []string
		if keep {
			sets = append(sets, "keep=ctr")
		}
		asked := slices.ContainsFunc(plan.Ask(load(t, "worker", sets...)), func(r lock.Request) bool { return r.Name == "ctr" })
		if placed := file(decide(t, "worker", sets...), "/usr/bin/ctr").Part == "ctr"; asked != keep || placed != keep {
			t.Errorf("kept %v: asked %v, placed %v", keep, asked, placed)
		}
	}
}

// TestPlugins wants every plugin that /opt/cni/bin links to on board, and those of
// other pod networks not.
func TestPlugins(t *testing.T) {
	for _, c := range []struct {
		sets  []string
		links string
	}{
		{nil, "bridge flannel host-local loopback portmap"},
		{[]string{"cni.name=none"}, "bandwidth bridge dhcp firewall host-device host-local ipvlan loopback macvlan portmap ptp sbr static tuning vlan vrf"},
		{[]string{"keep=cni-plugins"}, "bandwidth bridge dhcp firewall flannel host-device host-local ipvlan loopback macvlan portmap ptp sbr static tuning vlan vrf"},
	} {
		p := decide(t, "worker", c.sets...)
		var links []string
		for line := range strings.Lines(file(p, "/usr/lib/tmpfiles.d/imgbuild-cni.conf").Text) {
			if words := strings.Fields(line); words[0] == "L+" {
				links = append(links, strings.TrimPrefix(words[1], "/var/opt/cni/bin/"))
			}
		}
		slices.Sort(links)
		if got := strings.Join(links, " "); got != c.links {
			t.Errorf("%v: %s, want %s", c.sets, got, c.links)
		}
		for _, l := range p.LeftOut {
			if l.Name != "cni-plugins" {
				continue
			}
			for _, name := range links {
				if !slices.Contains(l.But, "usr/lib/cni/"+name) {
					t.Errorf("%v: %s is linked to, and left out", c.sets, name)
				}
			}
		}
	}
}
