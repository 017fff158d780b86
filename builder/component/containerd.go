package component

import (
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// cniPlugins are the plugins of the base's package; "flannel" comes with the pod network.
var cniPlugins = []string{"bandwidth", "bridge", "dhcp", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan",
	"portmap", "ptp", "sbr", "static", "tuning", "vlan", "vrf"}

// containerd is the container runtime, with runc and the CNI plugins of the base.
func containerd() Component {
	return Component{
		Name: "containerd", Doc: "containerd with the CRI on, systemd cgroups, kubeadm's sandbox image",
		Request: func(n *spec.Node) Wants {
			w := Wants{Packages: []string{"runc", "containernetworking-plugins"}}
			if n.Containerd.Source == "base" {
				w.Packages = append(w.Packages, "containerd")
				return w
			}
			for _, name := range programsOf(n) {
				w.Requests = append(w.Requests, lock.Request{Kind: lock.KindPart, Name: name, Version: n.Containerd.Version, Source: n.Containerd.Source})
			}
			return w
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			first := strings.HasPrefix(n.Containerd.Version, "1.")
			files, err := overlay("containerd", view{Node: n, Facts: f, Containerd1: first, Plugins: pluginsOf(n)})
			a := Addition{
				Files:  files,
				Enable: []Unit{{"containerd.service", "multi-user.target"}},
				Checks: []Check{
					{"the CRI answers", "crictl info >/dev/null"},
					{"containerd uses systemd cgroups", "crictl info | grep -q '\"SystemdCgroup\": true'"},
					{"the kubelet uses systemd cgroups", "grep -q 'cgroupDriver: systemd' /var/lib/kubelet/config.yaml"},
				},
			}
			if n.Containerd.Source != "base" {
				for _, name := range programsOf(n) {
					a.Files = append(a.Files, File{Path: "/usr/bin/" + name, Mode: 0o755, Part: name})
				}
			}
			return a, err
		},
	}
}

// programsOf are containerd's own programs on a node.
func programsOf(n *spec.Node) []string {
	if leavesOut(n, keepCtr) {
		return []string{"containerd", "containerd-shim-runc-v2"}
	}
	return []string{"containerd", "containerd-shim-runc-v2", "ctr"}
}

// pluginsOf are the CNI plugins that /opt/cni/bin starts with.
func pluginsOf(n *spec.Node) []string {
	plugins := cniPlugins
	if used := podNetworks[n.CNI.Name].Plugins; len(used) > 0 && leavesOut(n, keepPlugins) {
		plugins = used
	}
	if n.CNI.Name == "flannel" {
		return append([]string{"flannel"}, plugins...)
	}
	return plugins
}
