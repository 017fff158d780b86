package component

import "github.com/imgbuild/imgbuild/builder/spec"

// vrrp is how masters tell each other who holds the address.
var vrrp = Port{"ip", 112, 112, "VRRP: who holds the masters' address"}

// holdsAddress says whether masters can hold an address: the agent sees to it.
func holdsAddress(n *spec.Node) bool { return n.Role == "master" && n.Bootstrap != ClusterAPI }

// vip lets masters hold the API's address among themselves, by keepalived, where
// the node config asks for it. Who they are is not known to an image: keepalived
// itself takes adverts from the other masters alone.
func vip() Component {
	add := fromOverlay("vip", Addition{
		Mask:  []string{"keepalived.service"},
		Ports: []Port{vrrp},
		Checks: []Check{
			{"keepalived runs if the node config asks for it", "test -x /usr/sbin/keepalived && [ $(test -e /run/imgbuild/keepalived.conf && echo active || echo inactive) = $(systemctl is-active imgbuild-vip.service) ]"},
		},
	})
	return Component{
		Name: "vip", Doc: "masters hold the API's address among themselves, if their node configs say so",
		Request: func(n *spec.Node) Wants {
			if !holdsAddress(n) {
				return Wants{}
			}
			return Wants{Packages: []string{"keepalived"}}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			if !holdsAddress(n) {
				return Addition{}, nil
			}
			return add(n, f)
		},
	}
}
