package kit

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// Target is one node as a stranger sees it.
type Target struct {
	Role     string
	IP       string
	Declared []component.Port // what its plan lets in
}

// Addrs are the node's IPv4 and IPv6 address on the machines' network.
func (t Target) Addrs() []netip.Addr {
	six, err := vnet.LinkLocal(t.IP)
	if err != nil {
		return nil // not reached: IP is a constant
	}
	return []netip.Addr{netip.MustParseAddr(t.IP), six}
}

// Lets says whether the plan lets a port in.
func (t Target) Lets(proto string, port uint16) bool {
	return slices.ContainsFunc(t.Declared, func(p component.Port) bool {
		return p.Proto == proto && p.First <= int(port) && int(port) <= p.Last
	})
}

// Probes are ports of all the node's addresses.
func (t Target) Probes(proto string, ports ...uint16) []vnet.Probe {
	var out []vnet.Probe
	for _, addr := range t.Addrs() {
		for _, port := range ports {
			out = append(out, vnet.Probe{Addr: addr, Proto: proto, Port: port})
		}
	}
	return out
}

// EveryPort is 1 to 65535.
func EveryPort() []uint16 {
	out := make([]uint16, 65535)
	for i := range out {
		out[i] = uint16(i + 1) // #nosec G115 -- at most 65535
	}
	return out
}

// Scan is what a node answered.
type Scan struct {
	Target
	Proto string
	Heard map[vnet.Probe]vnet.Answer
}

// ports are those of one protocol at which a scan knocks: every one of TCP; of UDP those
// that are declared, the first 2048, and what pod networks, discovery and tunnels use.
func (t Target) ports(proto string) []uint16 {
	if proto == "tcp" {
		return EveryPort()
	}
	return slices.DeleteFunc(EveryPort(), func(port uint16) bool {
		return port > 2048 && !t.Lets(proto, port) && !slices.Contains([]uint16{2049, 2152, 3478, 4500, 4789, 5353, 5355, 6081, 6783, 6784, 8285, 8472, 10250, 10255, 10256, 51820, 51821}, port)
	})
}

// Scan knocks at the ports of one protocol on both addresses of a node, perSecond
// times a second. What is declared and kept silent is asked twice more: a packet
// may be lost.
func (t Target) Scan(ctx context.Context, stranger *vnet.Scanner, proto string, perSecond int) (Scan, error) {
	s := Scan{t, proto, nil}
	for i, ask := 0, t.Probes(proto, t.ports(proto)...); i < 3 && len(ask) > 0; i++ {
		if err := stranger.Sweep(ctx, ask, perSecond); err != nil {
			return s, err
		}
		s.Heard = stranger.Heard()
		ask = slices.DeleteFunc(ask, func(p vnet.Probe) bool { return s.Heard[p] != "" || !t.Lets(proto, p.Port) })
	}
	return s, nil
}

// Leaks are the answers that nobody declared.
func (t Target) Leaks(heard map[vnet.Probe]vnet.Answer) []string {
	var out []string
	for p, answer := range heard {
		if slices.Contains(t.Addrs(), p.Addr) && !t.Lets(p.Proto, p.Port) {
			out = append(out, fmt.Sprintf("%s %s/%d is %s", p.Addr, p.Proto, p.Port, answer))
		}
	}
	slices.Sort(out)
	return out
}

// Silent are the declared ports of an address that did not answer, as ranges.
func (s Scan) Silent(addr netip.Addr) []string { return s.ranges(addr, "") }

// ranges are the declared ports with an answer, in ranges: "10250", "30000-32767".
func (s Scan) ranges(addr netip.Addr, answer vnet.Answer) []string {
	var out []string
	first, last := 0, 0
	flush := func() {
		switch first {
		case 0:
		case last:
			out = append(out, fmt.Sprint(first))
		default:
			out = append(out, fmt.Sprintf("%d-%d", first, last))
		}
		first = 0
	}
	for _, port := range EveryPort() {
		p := vnet.Probe{Addr: addr, Proto: s.Proto, Port: port}
		if s.Heard[p] != answer || answer == "" && !s.Lets(s.Proto, port) {
			flush()
			continue
		}
		if first == 0 {
			first = int(port)
		}
		last = int(port)
	}
	flush()
	return out
}

// Rows is the scan as rows of a table: role, family, protocol, open, let in, silent.
func (s Scan) Rows() string {
	var b strings.Builder
	list := func(ports []string) string {
		if len(ports) == 0 {
			return "–"
		}
		return strings.Join(ports, ", ")
	}
	for _, addr := range s.Addrs() {
		family := map[bool]string{true: "IPv4", false: "IPv6"}[addr.Is4()]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", s.Role, family, s.Proto, list(s.ranges(addr, vnet.Open)), list(s.ranges(addr, vnet.Closed)), list(s.Silent(addr)))
	}
	return b.String()
}
