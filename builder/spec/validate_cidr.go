package spec

import "net/netip"

// kubeadm's limits: MaximumBitsForServiceSubnet 20, MinimumAddressesInServiceSubnet 10;
// each node gets a /24 of the pods' network (the default node mask), and
// PodSubnetNodeMaskMaxDiff 16 bounds their number.
const (
	serviceWidest, serviceTightest = 12, 28
	podWidest, podTightest         = 8, 24
)

// reserved are networks that a cluster can not have.
var reserved = []struct{ CIDR, Is string }{
	{"0.0.0.0/8", "this host"}, {"127.0.0.0/8", "loopback"}, {"169.254.0.0/16", "link-local"},
	{"224.0.0.0/4", "multicast"}, {"240.0.0.0/4", "reserved"},
}

// networks checks the pods' and the services' network.
func (c *checker) networks() {
	k := c.n.Kubernetes
	pods := c.cidr("kubernetes.podCIDR", k.PodCIDR, podWidest, podTightest)
	services := c.cidr("kubernetes.serviceCIDR", k.ServiceCIDR, serviceWidest, serviceTightest)
	if pods == nil || services == nil || !pods.Overlaps(*services) {
		return
	}
	// Said of the one that the user wrote, if it is one of them.
	path, mine, path2, other := "kubernetes.podCIDR", pods, "kubernetes.serviceCIDR", services
	if !c.n.origins.byUser(path) && c.n.origins.byUser(path2) {
		path, mine, path2, other = path2, other, path, mine
	}
	c.fail(path, sprintf("%s overlaps %s %s", mine, path2, other), "choose networks that have no address in common")
}

// cidr checks one network; it returns nil, with a finding where there is none yet,
// for one that can not be used.
func (c *checker) cidr(path, text string, widest, tightest int) *netip.Prefix {
	if text == "" || c.bad(path) {
		return nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		c.fail(path, sprintf("%s is not an IPv4 network", quote(text)), rules[path].Hint)
		return nil
	}
	if p != p.Masked() {
		c.fail(path, sprintf("%s has bits beyond its mask", text), sprintf("write it as %q", p.Masked()))
		return nil
	}
	for _, r := range reserved {
		if netip.MustParsePrefix(r.CIDR).Overlaps(p) {
			c.fail(path, sprintf("%s is in %s, which is %s", text, r.CIDR, r.Is), "use a private network, such as one in 10.0.0.0/8")
			return nil
		}
	}
	if p.Bits() < widest || p.Bits() > tightest {
		c.fail(path, sprintf("a /%d network is too %s", p.Bits(), map[bool]string{true: "large", false: "small"}[p.Bits() < widest]),
			sprintf("kubeadm takes /%d to /%d", widest, tightest))
		return nil
	}
	return &p
}
