package component

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// rolePorts are the ports that other machines must reach, by role. 10257 and
// 10259 (controller manager, scheduler) listen on loopback only.
var rolePorts = map[string][]Port{
	"master": {
		{"tcp", 6443, 6443, "Kubernetes API"},
		{"tcp", 2379, 2380, "etcd peers"},
		{"tcp", 10250, 10250, "kubelet"},
		{"tcp", 30000, 32767, "NodePort services"},
		{"udp", 30000, 32767, "NodePort services"},
	},
	"worker": {
		{"tcp", 10250, 10250, "kubelet"},
		{"tcp", 30000, 32767, "NodePort services"},
		{"udp", 30000, 32767, "NodePort services"},
	},
}

// firewall is the node's packet filter. Its rules are rendered from the ports of
// all components (Render); here are those of the role and of the user.
func firewall() Component {
	return Component{
		Name: "firewall", Doc: "input denied but for what role, pod network and spec need",
		Request: wants("nftables"),
		Add: func(n *spec.Node, _ Facts) (Addition, error) {
			a := Addition{Mask: []string{"nftables.service", "firewalld.service", "ufw.service"}}
			if !n.Firewall.Enabled {
				return a, nil
			}
			a.Ports = append(a.Ports, rolePorts[n.Role]...)
			for _, text := range n.Firewall.Allow {
				p, err := parsePort(text)
				if err != nil {
					return Addition{}, err
				}
				a.Ports = append(a.Ports, p)
			}
			a.Enable = []Unit{{"imgbuild-firewall.service", "sysinit.target"}}
			a.Checks = []Check{
				{"input is denied by default", "nft list chain inet imgbuild input | grep -q 'policy drop'"},
				{"no other input filter", "! systemctl is-active -q nftables.service"},
			}
			for _, p := range a.Ports { // those of the role and of the user
				a.Checks = append(a.Checks, Check{fmt.Sprintf("%s %d is open", p.Proto, p.First),
					fmt.Sprintf("nft list chain inet imgbuild input | grep -Eqw '%s dport %d(-%d)?'", p.Proto, p.First, p.Last)})
			}
			return a, nil
		},
	}
}

// parsePort reads "tcp/9100" or "udp/30000-30100", which the spec has checked.
func parsePort(text string) (Port, error) {
	proto, span, _ := strings.Cut(text, "/")
	from, to, isRange := strings.Cut(span, "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		return Port{}, fmt.Errorf("firewall.allow: cannot read %q", text)
	}
	return Port{proto, first, last, "firewall.allow"}, nil
}
