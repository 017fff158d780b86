package component

import (
	"slices"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// firstboot is the agent that makes the node a member of its cluster.
func firstboot() Component {
	add := fromOverlay("firstboot", Addition{
		Files:  append(slices.Clone(agent), File{Path: "/usr/bin/imgbuild-firstboot", Link: "../lib/imgbuild/imgbuild-firstboot"}), // for its word "status"
		Enable: []Unit{{"imgbuild-firstboot.service", "multi-user.target"}},
		Checks: []Check{
			{"first boot is done", "grep -q '\"committed\"' /run/imgbuild/status.json"},
			{"the node says so, and knows its machine", "imgbuild-firstboot status | grep -q 'a member of its cluster' && grep -q '\"macs\"' /var/lib/imgbuild/firstboot/journal.json"},
		},
	})
	return Component{
		Name: "firstboot", Doc: "the agent that runs kubeadm init or join",
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			if n.Bootstrap == ClusterAPI {
				return Addition{}, nil
			}
			a, err := add(n, f)
			if n.Role == "master" {
				a.Checks = append(a.Checks, Check{"root has a kubeconfig", "test -s /root/.kube/config && [ $(stat -Lc %a /root/.kube/config) = 600 ]"})
			}
			return a, err
		},
	}
}
