package serve

import (
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/lease"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// leaseTime is how long an address is a machine's.
const leaseTime = time.Hour

// addPool makes the full server's addresses.
func (s *Server) addPool() (err error) {
	o, net := s.o, s.o.Address.Masked()
	if !net.Contains(o.First) || !net.Contains(o.Last) {
		return fault.New(fault.Usage, "--range %s-%s: it is not in %s, the network of this host's address", o.First, o.Last, net)
	}
	if o.Gateway.IsValid() && !net.Contains(o.Gateway) {
		return fault.New(fault.Usage, "--gateway %s: it is not in %s, the network of this host's address", o.Gateway, net)
	}
	s.pool, err = lease.New(o.First, o.Last, leaseTime, append([]netip.Addr{s.addr, o.Gateway, net.Addr(), lastOf(net)}, o.DNS...)...)
	return fault.Wrap(fault.Usage, err)
}

// lastOf is a network's broadcast address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8) // #nosec G602 -- 32 bits are four bytes
	}
	return netip.AddrFrom4(b)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// lease answers as a DHCP server (RFC 2131, 4.3). A machine is its MAC address: firmware,
// iPXE and system each call themselves something else (option 61), and are to have one
// address.
func (s *Server) lease(req *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	key, now := req.ClientHWAddr.String(), repro.Now()
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		addr, ok := s.pool.Offer(key, addrOf(req.RequestedIPAddress()), now)
		if !ok {
			s.metrics.dhcp("full")
			s.tell.sayOnce(Event{Via: "dhcp", What: refused, MAC: key, Note: "every address of --range is in use"})
			return nil
		}
		return s.grant(req, dhcpv4.MessageTypeOffer, addr)
	case dhcpv4.MessageTypeRequest:
		if id := req.ServerIdentifier(); id != nil && addrOf(id) != s.addr {
			s.pool.Free(key) // it took another server's
			return nil
		}
		addr := addrOf(req.RequestedIPAddress())
		if !addr.IsValid() || addr.IsUnspecified() {
			addr = addrOf(req.ClientIPAddr)
		}
		if !s.pool.Take(key, addr, now) {
			s.metrics.dhcp("nak")
			res, err := s.reply(req, dhcpv4.MessageTypeNak)
			if err != nil {
				return nil
			}
			return res
		}
		return s.grant(req, dhcpv4.MessageTypeAck, addr)
	case dhcpv4.MessageTypeInform:
		return s.grant(req, dhcpv4.MessageTypeAck, netip.Addr{})
	case dhcpv4.MessageTypeDecline:
		s.pool.Decline(key, now)
		s.tell.sayOnce(Event{Via: "dhcp", What: refused, MAC: key, Note: "it found its address in use: there is another DHCP server, or a machine with that address"})
	case dhcpv4.MessageTypeRelease:
		s.pool.Free(key)
	}
	return nil
}

// grant answers with an address, none where it is not valid, and with what is to be booted.
func (s *Server) grant(req *dhcpv4.DHCPv4, message dhcpv4.MessageType, addr netip.Addr) *dhcpv4.DHCPv4 {
	res, err := s.reply(req, message)
	if err != nil {
		return nil
	}
	res.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(s.o.Address.Bits(), 32)))
	if s.o.Gateway.IsValid() {
		res.UpdateOption(dhcpv4.OptRouter(s.o.Gateway.AsSlice()))
	}
	if len(s.o.DNS) > 0 {
		var ips []net.IP
		for _, a := range s.o.DNS {
			ips = append(ips, a.AsSlice())
		}
		res.UpdateOption(dhcpv4.OptDNS(ips...))
	}
	if addr.IsValid() {
		res.YourIPAddr = addr.AsSlice()
		res.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
	}
	if kind := askerOf(req); kind != askerNone {
		if o := s.offer(req, kind); o != nil {
			o.put(res, req, s.addr.AsSlice(), false)
		}
	}
	s.metrics.dhcp(message.String())
	return res
}
