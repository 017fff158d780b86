package vnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"

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
	"gvisor.dev/gvisor/pkg/waiter"
)

// Host is a machine of the network in this process: a network stack of its own
// that speaks QEMU's stream protocol. What a test serves to machines, it serves here.
type Host struct {
	addr  tcpip.Address
	mac   tcpip.LinkAddress
	stack *stack.Stack
	conn  net.Conn
	link  *channel.Endpoint
}

// NewHost connects to the network's socket as the machine of an IPv4 address that
// nobody else has; the subnet is that of its first 24 bits. The caller closes it.
func NewHost(path, ip string) (*Host, error) {
	mac, err := linkAddress(ip)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("connecting the host: %w", err)
	}
	h := &Host{addr: tcpip.AddrFrom4(netip.MustParseAddr(ip).As4()), mac: mac, conn: conn, link: channel.New(256, mtu, mac), stack: stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})}
	subnet := tcpip.AddressWithPrefix{Address: h.addr, PrefixLen: 24}
	terr := h.stack.CreateNIC(1, ethernet.New(h.link))
	if terr == nil {
		terr = h.stack.AddProtocolAddress(1, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: subnet}, stack.AddressProperties{})
	}
	if terr != nil {
		_ = h.Close()
		return nil, fmt.Errorf("the host's network stack: %s", terr)
	}
	h.stack.SetRouteTable([]tcpip.Route{{Destination: subnet.Subnet(), NIC: 1}})
	go h.out()
	go h.in()
	return h, nil
}

// Close takes the host off the network.
func (h *Host) Close() error {
	h.link.Close()
	return h.conn.Close()
}

func (h *Host) out() {
	for {
		pkt := h.link.ReadContext(context.Background())
		if pkt == nil {
			return // closed
		}
		err := h.frame(pkt.ToView().AsSlice())
		pkt.DecRef()
		if err != nil {
			return
		}
	}
}

// frame sends one Ethernet frame, after its length.
func (h *Host) frame(data []byte) error {
	_, err := h.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)) // #nosec G115 -- a frame is short
	return err
}

func (h *Host) in() {
	var size [4]byte
	for {
		if _, err := io.ReadFull(h.conn, size[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(h.conn, data); err != nil {
			return
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(data)})
		h.link.InjectInbound(0, pkt) // the Ethernet header says which protocol
		pkt.DecRef()
	}
}

// Listen opens a TCP port of the host. The caller closes it.
func (h *Host) Listen(port uint16) (net.Listener, error) {
	return gonet.ListenTCP(h.stack, h.at(port), ipv4.ProtocolNumber)
}

// ListenPacket opens a UDP port of the host. The caller closes it.
func (h *Host) ListenPacket(port uint16) (net.PacketConn, error) {
	at := h.at(port)
	return gonet.DialUDP(h.stack, &at, nil, ipv4.ProtocolNumber)
}

// ListenBroadcast opens a UDP port that hears, and can send, what is for everybody, as
// DHCP needs it. The caller closes it.
func (h *Host) ListenBroadcast(port uint16) (net.PacketConn, error) {
	var queue waiter.Queue
	ep, terr := h.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if terr != nil {
		return nil, fmt.Errorf("the host's port %d: %s", port, terr)
	}
	ep.SocketOptions().SetBroadcast(true)
	if terr := ep.Bind(tcpip.FullAddress{NIC: 1, Port: port}); terr != nil {
		ep.Close()
		return nil, fmt.Errorf("the host's port %d: %s", port, terr)
	}
	return gonet.NewUDPConn(&queue, ep), nil
}

func (h *Host) at(port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: 1, Addr: h.addr, Port: port}
}
