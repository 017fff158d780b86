package vnet

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
)

// peer is a Host that tests ask.
type peer struct {
	*Host
	t *testing.T
}

func newPeer(t *testing.T, path, ip string) *peer {
	t.Helper()
	h, err := NewHost(path, ip)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return &peer{h, t}
}

// broadcast sends a frame to everybody.
func (p *peer) broadcast() {
	frame := append([]byte{255, 255, 255, 255, 255, 255}, p.mac...)
	must(p.t, p.frame(append(append(frame, 0x88, 0xb5), make([]byte, 256)...))) // the local experimental EtherType
}

func (p *peer) full(port uint16) *tcpip.FullAddress {
	at := p.at(port)
	return &at
}

// echo answers on port with what it is told.
func (p *peer) echo(port uint16) {
	l, err := p.Listen(port)
	must(p.t, err)
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(conn, conn)
				conn.Close()
			}()
		}
	}()
}

// listen opens ports of all the peer's addresses.
func (p *peer) listen(ports ...uint16) {
	for _, port := range ports {
		l, err := gonet.ListenTCP(p.stack, tcpip.FullAddress{NIC: 1, Port: port}, ipv6.ProtocolNumber) // takes IPv4, too
		must(p.t, err)
		p.t.Cleanup(func() { l.Close() })
	}
}

// tcp has other echo a text.
func (p *peer) tcp(other *peer, port uint16, text string) string {
	p.t.Helper()
	other.echo(port)
	conn, err := gonet.DialContextTCP(limited(p.t), p.stack, *other.full(port), ipv4.ProtocolNumber)
	must(p.t, err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, text)
	got := make([]byte, len(text))
	_, err = io.ReadFull(conn, got)
	must(p.t, err)
	return string(got)
}

func (p *peer) udp(port uint16) net.Conn {
	p.t.Helper()
	conn, err := gonet.DialUDP(p.stack, p.full(port), nil, ipv4.ProtocolNumber)
	must(p.t, err)
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *peer) send(ip string, port uint16, text string) {
	p.t.Helper()
	conn, err := gonet.DialUDP(p.stack, nil, &tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4Slice(net.ParseIP(ip).To4()), Port: port}, ipv4.ProtocolNumber)
	must(p.t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	must(p.t, err)
}

func receive(t *testing.T, conn net.Conn) string {
	t.Helper()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	data := make([]byte, 2048)
	n, err := conn.Read(data)
	must(t, err)
	return string(data[:n])
}

// dhcp asks for an address as a machine does that has none yet.
func (p *peer) dhcp() *dhcpv4.DHCPv4 {
	p.t.Helper()
	conn, err := gonet.DialUDP(p.stack, p.full(68), &tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), Port: 67}, ipv4.ProtocolNumber)
	must(p.t, err)
	defer conn.Close()
	ask, err := dhcpv4.NewDiscovery(net.HardwareAddr(p.mac))
	must(p.t, err)
	_, err = conn.Write(ask.ToBytes())
	must(p.t, err)
	offer, err := dhcpv4.FromBytes([]byte(receive(p.t, conn)))
	must(p.t, err)
	return offer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
