package vnet

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// macOf is the MAC address of the machine of an address: as MAC and LinkLocal
// derive one from the other.
func macOf(a netip.Addr) tcpip.LinkAddress {
	if a.Is4() {
		mac, _ := linkAddress(a.String()) // an IPv4 address has one
		return mac
	}
	b := a.As16()
	return tcpip.LinkAddress([]byte{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]})
}

// frame puts Ethernet and IP around a segment, whose checksum must be right.
func (s *Scanner) frame(to netip.Addr, proto tcpip.TransportProtocolNumber, segment []byte) []byte {
	size, kind := header.IPv4MinimumSize, header.IPv4ProtocolNumber
	if !to.Is4() {
		size, kind = header.IPv6MinimumSize, header.IPv6ProtocolNumber
	}
	out := make([]byte, header.EthernetMinimumSize+size, header.EthernetMinimumSize+size+len(segment))
	header.Ethernet(out).Encode(&header.EthernetFields{SrcAddr: s.mac, DstAddr: macOf(to), Type: kind})
	from, packet := address(s.addrs[to.Is4()]), out[header.EthernetMinimumSize:]
	if to.Is4() {
		ip := header.IPv4(packet)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(size + len(segment)), TTL: 64, Protocol: uint8(proto), SrcAddr: from, DstAddr: address(to)}) // #nosec G115 -- both are small
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(packet).Encode(&header.IPv6Fields{PayloadLength: uint16(len(segment)), TransportProtocol: proto, HopLimit: 255, SrcAddr: from, DstAddr: address(to)}) // #nosec G115 -- small
	}
	return append(out, segment...)
}

// partial is the checksum of a segment's pseudo header.
func (s *Scanner) partial(to netip.Addr, proto tcpip.TransportProtocolNumber, size int) uint16 {
	return header.PseudoHeaderChecksum(proto, address(s.addrs[to.Is4()]), address(to), uint16(size)) // #nosec G115 -- small
}

// knocking is the first packet of a connection: a SYN, or an empty datagram.
func (s *Scanner) knocking(p Probe, from uint16) []byte {
	if p.Proto == "udp" {
		u := header.UDP(make([]byte, header.UDPMinimumSize))
		u.Encode(&header.UDPFields{SrcPort: from, DstPort: p.Port, Length: header.UDPMinimumSize})
		u.SetChecksum(^u.CalculateChecksum(s.partial(p.Addr, header.UDPProtocolNumber, len(u))))
		return s.frame(p.Addr, header.UDPProtocolNumber, u)
	}
	return s.segment(p, header.TCPFields{SrcPort: from, SeqNum: 1, Flags: header.TCPFlagSyn, WindowSize: 1024})
}

func (s *Scanner) segment(p Probe, f header.TCPFields) []byte {
	t := header.TCP(make([]byte, header.TCPMinimumSize))
	f.DstPort, f.DataOffset = p.Port, header.TCPMinimumSize
	t.Encode(&f)
	t.SetChecksum(^t.CalculateChecksum(s.partial(p.Addr, header.TCPProtocolNumber, len(t))))
	return s.frame(p.Addr, header.TCPProtocolNumber, t)
}

// wrapped is a frame in VXLAN's header and a datagram.
func (s *Scanner) wrapped(v VXLAN, to netip.Addr, inner []byte) []byte {
	const vxlanSize = 8
	u := header.UDP(make([]byte, header.UDPMinimumSize+vxlanSize, header.UDPMinimumSize+vxlanSize+len(inner)))
	u.Encode(&header.UDPFields{SrcPort: 40000, DstPort: v.Port, Length: uint16(cap(u))}) // #nosec G115 -- small; without a checksum, as VXLAN has it
	u[header.UDPMinimumSize] = 8                                                         // the ID is valid
	binary.BigEndian.PutUint32(u[header.UDPMinimumSize+4:], v.ID<<8)
	return s.frame(to, header.UDPProtocolNumber, append(u, inner...))
}

// solicitation asks a neighbour for the MAC address that it is sent to, and names the scanner's.
func (s *Scanner) solicitation(to netip.Addr) []byte {
	return s.neighbour(to, header.ICMPv6NeighborSolicit, to, header.NDPSourceLinkLayerAddressOption(s.mac), 0)
}

// advertisement answers a neighbour's question, which came by unicast.
func (s *Scanner) advertisement(to netip.Addr) []byte {
	const solicitedOverride = 0x60
	return s.neighbour(to, header.ICMPv6NeighborAdvert, s.addrs[false], header.NDPTargetLinkLayerAddressOption(s.mac), solicitedOverride)
}

func (s *Scanner) neighbour(to netip.Addr, kind header.ICMPv6Type, target netip.Addr, link header.NDPOption, flags byte) []byte {
	options := header.NDPOptionsSerializer{link}
	m := header.ICMPv6(make([]byte, header.ICMPv6NeighborSolicitMinimumSize+options.Length()))
	m.SetType(kind)
	body := header.NDPNeighborSolicit(m.MessageBody()) // an advertisement has the same layout, with flags in front
	body.SetTargetAddress(address(target))
	body.Options().Serialize(options)
	body[0] = flags
	m.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: m, Src: address(s.addrs[false]), Dst: address(to)}))
	return s.frame(to, header.ICMPv6ProtocolNumber, m)
}

// understand reads a frame: the answer to a probe, if it is one, and what to say back, if anything.
func (s *Scanner) understand(frame []byte) (p Probe, answer Answer, reply []byte) {
	if len(frame) < header.EthernetMinimumSize {
		return
	}
	packet := frame[header.EthernetMinimumSize:]
	switch header.Ethernet(frame).Type() {
	case header.ARPProtocolNumber:
		return p, "", s.arp(header.ARP(packet))
	case header.IPv4ProtocolNumber:
		if ip := header.IPv4(packet); ip.IsValid(len(packet)) && ip.DestinationAddress() == address(s.addrs[true]) {
			return s.segmentOf(netip.AddrFrom4(ip.SourceAddress().As4()), ip.TransportProtocol(), ip.Payload())
		}
	case header.IPv6ProtocolNumber:
		if ip := header.IPv6(packet); ip.IsValid(len(packet)) && ip.DestinationAddress() == address(s.addrs[false]) {
			return s.segmentOf(netip.AddrFrom16(ip.SourceAddress().As16()), ip.TransportProtocol(), ip.Payload())
		}
	}
	return
}

func (s *Scanner) segmentOf(from netip.Addr, proto tcpip.TransportProtocolNumber, data []byte) (p Probe, answer Answer, reply []byte) {
	p.Addr = from
	switch {
	case proto == header.TCPProtocolNumber && len(data) >= header.TCPMinimumSize:
		t := header.TCP(data)
		p.Proto, p.Port, answer = "tcp", t.SourcePort(), Closed
		if t.Flags().Contains(header.TCPFlagSyn | header.TCPFlagAck) {
			answer = Open
			reply = s.segment(p, header.TCPFields{SrcPort: t.DestinationPort(), SeqNum: 2, Flags: header.TCPFlagRst})
		}
	case proto == header.UDPProtocolNumber && len(data) >= header.UDPMinimumSize:
		p.Proto, p.Port, answer = "udp", header.UDP(data).SourcePort(), Open
	case proto == header.ICMPv4ProtocolNumber && len(data) > header.ICMPv4MinimumSize+header.IPv4MinimumSize:
		if m := header.ICMPv4(data); m.Type() == header.ICMPv4DstUnreachable && m.Code() != header.ICMPv4NetUnreachable && m.Code() != header.ICMPv4HostUnreachable {
			inner := header.IPv4(m.Payload())
			return unreachable(from, inner.TransportProtocol(), inner[min(len(inner), int(inner.HeaderLength())):], m.Code() == header.ICMPv4PortUnreachable)
		}
	case proto == header.ICMPv6ProtocolNumber && len(data) >= header.ICMPv6MinimumSize:
		switch m := header.ICMPv6(data); {
		case m.Type() == header.ICMPv6NeighborSolicit:
			return Probe{}, "", s.advertisement(from)
		case m.Type() == header.ICMPv6DstUnreachable && (m.Code() == header.ICMPv6NetworkUnreachable || m.Code() == header.ICMPv6AddressUnreachable):
			return // the address is not there yet (duplicate address detection, RFC 4862): no port was reached
		case m.Type() == header.ICMPv6DstUnreachable && len(m.Payload()) > header.IPv6MinimumSize:
			inner := header.IPv6(m.Payload())
			return unreachable(from, inner.TransportProtocol(), inner[header.IPv6MinimumSize:], m.Code() == header.ICMPv6PortUnreachable)
		}
	}
	return
}

// unreachable is what an ICMP error says of the probe that it quotes.
func unreachable(from netip.Addr, proto tcpip.TransportProtocolNumber, quoted []byte, port bool) (p Probe, answer Answer, _ []byte) {
	if len(quoted) < header.UDPMinimumSize {
		return
	}
	p = Probe{from, "udp", header.UDP(quoted).DestinationPort()} // TCP has it at the same place
	if proto == header.TCPProtocolNumber {
		p.Proto = "tcp"
	}
	if answer = Refused; port && p.Proto == "udp" {
		answer = Closed
	}
	return p, answer, nil
}

// arp answers who asks for the scanner's IPv4 address.
func (s *Scanner) arp(ask header.ARP) []byte {
	if !ask.IsValid() || ask.Op() != header.ARPRequest || tcpip.AddrFromSlice(ask.ProtocolAddressTarget()) != address(s.addrs[true]) {
		return nil
	}
	to := tcpip.LinkAddress(ask.HardwareAddressSender())
	out := make([]byte, header.EthernetMinimumSize+header.ARPSize)
	header.Ethernet(out).Encode(&header.EthernetFields{SrcAddr: s.mac, DstAddr: to, Type: header.ARPProtocolNumber})
	r := header.ARP(out[header.EthernetMinimumSize:])
	r.SetIPv4OverEthernet()
	r.SetOp(header.ARPReply)
	copy(r.HardwareAddressSender(), s.mac)
	copy(r.ProtocolAddressSender(), ask.ProtocolAddressTarget())
	copy(r.HardwareAddressTarget(), to)
	copy(r.ProtocolAddressTarget(), ask.ProtocolAddressSender())
	return out
}
