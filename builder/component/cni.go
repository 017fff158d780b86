package component

import (
	"slices"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// ManifestPart is the name under which the user's own manifest of a pod network
// is asked for.
const ManifestPart = "cni.manifest"

// podNetwork is what a pod network asks of its nodes.
type podNetwork struct {
	Backends map[string]transport // by cni.backend
	Ports    []Port               // between the nodes, whatever the backend
	Secret   Port                 // with cni.encryption: wireguard
	Pods     []string             // links that the node's own pods come in by
	Links    []string             // all its links: networkd leaves them alone
	Tunnels  []string             // those whose MAC address is told to other nodes, and must stay
	RPFilter string               // net.ipv4.conf.{all,default}.rp_filter
	Sysctls  map[string]string
	Plugins  []string // of the base's package that it uses, or that containerd does; none: any
}

// transport is how packets travel between the nodes.
type transport struct {
	Modules []string
	Ports   []Port
}

// podNetworks is the one table of what pod networks differ in. Sources: flannel's
// Documentation/backends.md; docs.tigera.io "System requirements" (network
// requirements, and Felix' refusal of a loose rp_filter); docs.cilium.io "System
// Requirements" (firewall rules) and its note on systemd's rp_filter. What comes
// out of a tunnel for the node itself is not let in as such: the pods of other
// nodes reach a node by its ports, masqueraded; VXLAN, IP in IP and Geneve know
// no sender, so that trusting their links would open every port to whoever
// reaches one.
var podNetworks = map[string]podNetwork{
	"flannel": {
		Backends: map[string]transport{
			"vxlan":   {[]string{"vxlan"}, []Port{{"udp", 8472, 8472, "flannel VXLAN"}}},
			"host-gw": {},
		},
		Pods: []string{"cni0"}, Links: []string{"cni*", "flannel*"}, Tunnels: []string{"flannel*"},
		RPFilter: "2", // it routes symmetrically, so loose costs nothing
		Plugins:  []string{"bridge", "host-local", "loopback", "portmap"},
	},
	"calico": {
		Backends: map[string]transport{
			"vxlan": {[]string{"vxlan"}, []Port{{"udp", 4789, 4789, "Calico VXLAN"}}},
			"ipip":  {[]string{"ipip"}, []Port{{"tcp", 179, 179, "Calico BGP"}, {"ip", 4, 4, "Calico IP in IP"}}},
			"bgp":   {nil, []Port{{"tcp", 179, 179, "Calico BGP"}}},
		},
		Ports: []Port{{"tcp", 5473, 5473, "Calico Typha"}}, Secret: Port{"udp", 51820, 51821, "Calico WireGuard"},
		Pods: []string{"cali*"}, Links: []string{"cali*", "tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali"},
		Tunnels: []string{"vxlan.calico", "vxlan-v6.calico"}, RPFilter: "0", // Felix refuses 2, and sets 1 on its own links
		Plugins: []string{"bandwidth", "host-local", "loopback", "portmap"}, // its installer brings them, too
	},
	"cilium": {
		Backends: map[string]transport{
			"vxlan":  {[]string{"vxlan"}, []Port{{"udp", 8472, 8472, "Cilium VXLAN"}}},
			"geneve": {[]string{"geneve"}, []Port{{"udp", 6081, 6081, "Cilium Geneve"}}},
			"native": {},
		},
		Ports:  []Port{{"tcp", 4240, 4240, "Cilium health"}, {"tcp", 4244, 4244, "Cilium Hubble"}},
		Secret: Port{"udp", 51871, 51871, "Cilium WireGuard"},
		Pods:   []string{"lxc*", "cilium_host", "cilium_net"}, Links: []string{"cilium_*", "lxc*"}, Tunnels: []string{"cilium_vxlan", "cilium_geneve"}, RPFilter: "0",
		// systemd's own 50-default.conf names every link, and would win over "default".
		Sysctls: map[string]string{"net.ipv4.conf.lxc*.rp_filter": "0", "net.ipv4.conf.cilium_*.rp_filter": "0"},
		Plugins: []string{"loopback", "portmap"},
	},
	"none": {RPFilter: "0"}, // what the cluster brings may route as it likes
}

// otherLinks are the links that pods or their helpers make, whatever the pod network.
var otherLinks = []string{"veth*", "kube-*", "nodelocaldns*", "dummy*", "br-*", "docker*"}

// foreignLinks are the links that networkd leaves alone. Who brings a pod network
// of his own may bring any.
func foreignLinks(name string) []string {
	links := slices.Clone(podNetworks[name].Links)
	if name == "none" {
		for _, other := range podNetworks {
			links = append(links, other.Links...)
		}
	}
	slices.Sort(links)
	return append(slices.Compact(links), otherLinks...)
}

// cni is what any pod network asks of its nodes.
func cni() Component {
	return Component{
		Name: "cni", Doc: "what the pod network asks of its node: ports, modules, settings, its links left alone",
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			p := podNetworks[n.CNI.Name]
			by := p.Backends[n.CNI.Backend]
			ports, _ := PodPorts(n.CNI.Name, n.CNI.Backend)
			files, err := overlay("cni", view{Node: n, Facts: f, Links: foreignLinks(n.CNI.Name), Tunnels: p.Tunnels})
			a := Addition{Files: files, Modules: slices.Clone(by.Modules), Ports: ports, Sysctls: p.Sysctls}
			if n.CNI.Encryption == "wireguard" {
				a.Ports, a.Modules = append(a.Ports, p.Secret), append(a.Modules, "wireguard")
			}
			if n.CNI.Manifest.File != "" {
				a.Files = append(a.Files, File{Path: "/etc/imgbuild/manifests/" + n.CNI.Name + ".yaml", Mode: 0o644, Part: ManifestPart})
			}
			return a, err
		},
	}
}

// PodPorts is what a pod network's nodes must reach of each other; false where the
// table has no such backend.
func PodPorts(network, backend string) ([]Port, bool) {
	p := podNetworks[network]
	by, ok := p.Backends[backend]
	return append(slices.Clone(by.Ports), p.Ports...), ok
}
