package component

import "github.com/imgbuild/imgbuild/builder/spec"

// ClusterAPI is the bootstrap by Cluster API's bootstrap data.
const ClusterAPI = "cluster-api"

// agent is imgbuild's program on the node, which makes containerd's store, too.
var agent = []File{{Path: "/usr/lib/imgbuild/imgbuild-firstboot", Mode: 0o755, Part: "imgbuild-firstboot"}}

// clusterAPI is cloud-init in the place of the first-boot agent, and where the data that
// it fetches is Ignition's, Ignition. They run kubeadm as the bootstrap data of Cluster
// API's kubeadm provider says, which ends by writing /run/cluster-api/bootstrap-success.complete.
func clusterAPI() Component {
	add := fromOverlay("clusterapi", Addition{
		Files: agent,
		Enable: []Unit{{"imgbuild-identity.service", "multi-user.target"}, {"imgbuild-ignition.service", "cloud-init.target"},
			{"cloud-init-main.service", "cloud-init.target"}, {"cloud-init-local.service", "cloud-init.target"}, {"cloud-init-network.service", "cloud-init.target"},
			{"cloud-config.service", "cloud-init.target"}, {"cloud-final.service", "cloud-init.target"}},
		Checks: []Check{
			{"the bootstrap has succeeded", "grep -qx success /run/cluster-api/bootstrap-success.complete"},
			{"cloud-init has no complaint", "cloud-init status | grep -qx 'status: done'"},
			{"the machine's id is kept", "cmp /etc/machine-id /var/lib/imgbuild/etc/machine-id"},
		},
	})
	return Component{
		Name: "cluster-api", Doc: "bootstrap by Cluster API, if asked for",
		Request: func(n *spec.Node) Wants {
			if n.Bootstrap != ClusterAPI {
				return Wants{}
			}
			return Wants{Packages: []string{"cloud-init", "ignition"}}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			if n.Bootstrap != ClusterAPI {
				return Addition{}, nil
			}
			return add(n, f)
		},
	}
}
