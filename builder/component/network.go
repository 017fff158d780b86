package component

// foreignRoutes restarts networkd and looks whether what others routed is still there.
const foreignRoutes = `routes() { ip route show | grep -E '^blackhole| dev (cni|flannel|cali|tunl|vxlan|cilium|lxc)' | sort; }; ip route add blackhole 192.0.2.0/24 proto static; a=$(routes); ` +
	`systemctl restart systemd-networkd && /usr/lib/systemd/systemd-networkd-wait-online --timeout=60; b=$(routes); ip route del blackhole 192.0.2.0/24; ` +
	`echo "was: $a"; echo "is: $b"; ! grep -vxF -- "$b" <<<"$a" && grep -q blackhole <<<"$b"`

// network is the machine's own links, names and time; the pod network's are left alone.
func network() Component {
	return Component{
		Name: "network", Doc: "DHCP on the machine's links, names, time; hands off the pod network's links and routes",
		Request: wants("systemd-resolved", "systemd-timesyncd", "iproute2", "ethtool", "conntrack", "socat", "iptables", "nftables"),
		Add: fromOverlay("network", Addition{
			Files: []File{{Path: "/etc/resolv.conf", Link: "../run/systemd/resolve/stub-resolv.conf"}},
			Enable: []Unit{{"systemd-networkd.service", "multi-user.target"}, {"systemd-networkd.socket", "sockets.target"},
				{"systemd-networkd-wait-online.service", "network-online.target"},
				{"systemd-network-generator.service", "sysinit.target"}, // of what `imgbuild stamp` says of the network
				{"systemd-resolved.service", "sysinit.target"}, {"systemd-timesyncd.service", "sysinit.target"}},
			Checks: []Check{
				{"names resolve", "getent hosts $(hostname)"},
				{"networkd leaves foreign routes", foreignRoutes},
			},
		}),
	}
}
