package component

import (
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// flannelCNIVersion is the last release of the CNI plugins that holds flannel's.
const flannelCNIVersion = "0.9.1"

// flannel is the pod network that is on board, unless the spec names another. What
// it asks of the node stands in the table of pod networks.
func flannel() Component {
	return Component{
		Name: "flannel", Doc: "the pod network on board: manifest, plugin, image",
		Request: func(n *spec.Node) Wants {
			if n.CNI.Name != "flannel" {
				return Wants{}
			}
			return Wants{Requests: []lock.Request{
				{Kind: lock.KindPart, Name: "flannel-cni", Version: flannelCNIVersion, Source: "gomodule"},
				{Kind: lock.KindImage, Name: flannelImage, Version: "v" + n.CNI.Version, Source: "auto"},
			}}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			if n.CNI.Name != "flannel" {
				return Addition{}, nil
			}
			files, err := overlay("flannel", view{Node: n, Facts: f, FlannelImage: flannelImage + ":v" + n.CNI.Version})
			a := Addition{
				Files: append(files, File{Path: "/usr/lib/cni/flannel", Mode: 0o755, Part: "flannel-cni"}),
				Checks: []Check{
					{"flannel has a subnet", "test -s /run/flannel/subnet.env"},
				},
			}
			if n.CNI.Backend == "vxlan" {
				a.Checks = append(a.Checks, Check{"VXLAN checksums are not offloaded", "ethtool -k flannel.1 | grep -q 'tx-checksum-ip-generic: off'"})
			}
			return a, err
		},
	}
}
