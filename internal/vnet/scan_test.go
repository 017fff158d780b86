package vnet

import (
	"io"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// newScanned is a scanner, and a machine's IPv4 and IPv6 address; 22 and 6443 are
// open there.
func newScanned(t *testing.T) (*Scanner, [2]netip.Addr) {
	_, path := start(t, nil)
	p := newPeer(t, path, "10.0.0.10")
	six, err := LinkLocal("10.0.0.10")
	must(t, err)
	if err := p.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv6.ProtocolNumber, AddressWithPrefix: address(six).WithPrefix()}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	p.stack.AddRoute(tcpip.Route{Destination: tcpip.AddressWithPrefix{Address: address(six), PrefixLen: 64}.Subnet(), NIC: 1})
	p.broadcast() // the switch knows where it is
	s, err := NewScanner(path, "10.0.0.99")
	must(t, err)
	t.Cleanup(func() { s.Close() })
	p.listen(22, 6443)
	return s, [2]netip.Addr{netip.MustParseAddr("10.0.0.10"), six}
}

// TestSweepFindsEveryPort knocks at all TCP ports of both families: a machine
// without a packet filter answers for each.
func TestSweepFindsEveryPort(t *testing.T) {
	if testing.Short() {
		t.Skip("knocks 131070 times: left out by -short")
	}
	s, addrs := newScanned(t)
	for _, addr := range addrs {
		var probes []Probe
		want := map[Probe]Answer{}
		for port := 1; port <= 65535; port++ {
			p := Probe{addr, "tcp", uint16(port)}
			probes = append(probes, p)
			want[p] = Closed
		}
		want[Probe{addr, "tcp", 22}], want[Probe{addr, "tcp", 6443}] = Open, Open
		s.Forget()
		got := s.Heard()
		for tries := 0; tries < 5 && len(probes) > 0; tries++ { // a packet may be lost: who was silent is asked again
			must(t, s.Sweep(t.Context(), probes, 30000))
			got = s.Heard()
			probes = slices.DeleteFunc(probes, func(p Probe) bool { return got[p] != "" })
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d ports of %d answer", addr, len(got), len(want))
		}
		for p, answer := range got {
			if want[p] != answer {
				t.Errorf("%v is %s, want %s", p, answer, want[p])
			}
		}
	}
}

func TestSweepOfUDP(t *testing.T) {
	s, addrs := newScanned(t)
	for _, addr := range addrs {
		s.Forget()
		must(t, s.Sweep(t.Context(), []Probe{{addr, "udp", 53}, {addr, "udp", 8472}}, 100))
		if diff := cmp.Diff(map[Probe]Answer{{addr, "udp", 53}: Closed, {addr, "udp", 8472}: Closed}, s.Heard(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", addr, diff)
		}
	}
}

func TestListen(t *testing.T) {
	n, path := start(t, nil)
	l, err := n.Listen("10.0.0.1:9000")
	must(t, err)
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.WriteString(conn, "a file")
			conn.Close()
		}
	}()
	p := newPeer(t, path, "10.0.0.10")
	conn, err := gonet.DialContextTCP(limited(t), p.stack, tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), Port: 9000}, ipv4.ProtocolNumber)
	must(t, err)
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "a file" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSilence is a machine that is not there.
func TestSilence(t *testing.T) {
	s, _ := newScanned(t)
	must(t, s.Sweep(t.Context(), []Probe{{netip.MustParseAddr("10.0.0.11"), "tcp", 22}}, 100))
	if got := s.Heard(); len(got) > 0 {
		t.Errorf("nobody answers as %v", got)
	}
}

func TestLinkLocal(t *testing.T) {
	if got, err := LinkLocal("10.0.0.10"); err != nil || got.String() != "fe80::5054:ff:fe00:a" {
		t.Error(got, err)
	}
	if _, err := LinkLocal("ten"); err == nil {
		t.Error("no address has a link-local one")
	}
}
