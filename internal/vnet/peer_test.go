package vnet

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// peer is a machine in this process: a network stack of its own that speaks
// QEMU's stream protocol, each frame after its length in four bytes, big endian.
type peer struct {
	t     *testing.T
	addr  tcpip.Address
	mac   net.HardwareAddr
	stack *stack.Stack
	conn  net.Conn
}

func newPeer(t *testing.T, path, ip string) *peer {
	t.Helper()
	text, err := MAC(ip)
	must(t, err)
	mac, err := net.ParseMAC(text)
	must(t, err)
	conn, err := net.Dial("unix", path)
	must(t, err)
	link := channel.New(256, mtu, tcpip.LinkAddress(mac))
	p := &peer{t: t, addr: tcpip.AddrFrom4Slice(net.ParseIP(ip).To4()), mac: mac, conn: conn, stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})}
	t.Cleanup(func() { conn.Close(); link.Close() })
	if err := p.stack.CreateNIC(1, ethernet.New(link)); err != nil {
		t.Fatal(err)
	}
	subnet := tcpip.AddressWithPrefix{Address: p.addr, PrefixLen: 24}
	if err := p.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: subnet}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	p.stack.SetRouteTable([]tcpip.Route{{Destination: subnet.Subnet(), NIC: 1}})
	go p.out(link)
	go p.in(link)
	return p
}

func (p *peer) out(link *channel.Endpoint) {
	for {
		pkt := link.ReadContext(context.Background())
		if pkt == nil {
			return
		}
		p.frame(pkt.ToView().AsSlice())
		pkt.DecRef()
	}
}

func (p *peer) frame(data []byte) {
	p.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
}

func (p *peer) in(link *channel.Endpoint) {
	var size [4]byte
	for {
		if _, err := io.ReadFull(p.conn, size[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(p.conn, data); err != nil {
			return
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(data)})
		link.InjectInbound(0, pkt) // the Ethernet header says which protocol
		pkt.DecRef()
	}
}

// broadcast sends a frame to everybody.
func (p *peer) broadcast() {
	frame := append([]byte{255, 255, 255, 255, 255, 255}, p.mac...)
	p.frame(append(append(frame, 0x88, 0xb5), make([]byte, 256)...)) // the local experimental EtherType
}

func (p *peer) full(port uint16) *tcpip.FullAddress {
	return &tcpip.FullAddress{NIC: 1, Addr: p.addr, Port: port}
}

// echo answers on port with what it is told.
func (p *peer) echo(port uint16) {
	l, err := gonet.ListenTCP(p.stack, *p.full(port), ipv4.ProtocolNumber)
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
	ask, err := dhcpv4.NewDiscovery(p.mac)
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
