package serve

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/imgbuild/imgbuild/builder/inventory"
)

// What a client calls itself (option 60), and what it wants to be answered: RFC 4578, UEFI
// 2.10, 24.3 and 24.7.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
	userIPXE  = "iPXE" // option 77
)

// asker is what kind of firmware asks.
type asker int

const (
	askerNone  asker = iota // it does not boot from the network
	askerIPXE               // iPXE: takes a script by HTTP
	askerPXE                // UEFI: takes a program by TFTP
	askerHTTP               // UEFI: takes a program by HTTP
	askerBIOS               // takes iPXE by TFTP
	askerOther              // of another processor
)

func askerOf(req *dhcpv4.DHCPv4) asker {
	class := req.ClassIdentifier()
	var arch iana.Arch = 0xffff
	if all := req.ClientArch(); len(all) > 0 {
		arch = all[0]
	}
	switch {
	case slices.Contains(req.UserClass(), userIPXE):
		return askerIPXE
	case strings.HasPrefix(class, classHTTP) && arch == iana.EFI_X86_64_HTTP:
		return askerHTTP
	case strings.HasPrefix(class, classPXE) && (arch == iana.EFI_X86_64 || arch == iana.EFI_BC): // the RFC's errata: 7 is x86-64, 9 was meant to be
		return askerPXE
	case strings.HasPrefix(class, classPXE) && arch == iana.INTEL_X86PC:
		return askerBIOS
	case strings.HasPrefix(class, classPXE), strings.HasPrefix(class, classHTTP):
		return askerOther
	}
	return askerNone
}

// offer is what a client is to load.
type offer struct {
	class string // option 60 of the answer
	file  string // name or URL
	tftp  bool   // it comes by TFTP
	menu  bool   // the client has to be told that there is no menu (PXE 2.1, option 43)
}

// offer says what a client that asks is to load; nil: nothing, which is told here.
func (s *Server) offer(req *dhcpv4.DHCPv4, kind asker) *offer {
	e := Event{Via: "dhcp", What: refused, MAC: req.ClientHWAddr.String()}
	say := func(note string) *offer {
		e.Note = note
		s.metrics.dhcp(e.What)
		s.tell.sayOnce(e)
		return nil
	}
	asks := who{mac: e.MAC}
	if id := req.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(id) == 17 && id[0] == 0 {
		asks.uuids = bothOrders(id[1:])
	}
	m, err := s.machines.find(asks)
	ask := err == errUnknown && s.machines.serials // iPXE can say more
	if err != nil && !ask {
		return say(err.Error())
	}
	boot := userData // so does iPXE alone
	if m != nil {
		e.Machine, boot = m.name, s.machines.boot(m)
	}
	if boot == inventory.Local {
		e.What = goesOn
		return say("it is offered nothing")
	}
	o, note := s.offerOf(kind, boot)
	if o == nil {
		return say(note)
	}
	if o.file == "" {
		t, err := s.mint(m, boot, "")
		if err != nil {
			return say(errUnread.Error())
		}
		if o.file, e.Ticket = "m/"+t.id+"/"+fileBoot, t.short(); !o.tftp {
			o.file = s.url("/" + o.file)
		}
	}
	e.What, e.File = offered, o.file[strings.LastIndexByte(o.file, '/')+1:]
	say(boot)
	return o
}

// offerOf is what a kind of client loads for a kind of boot; without a file it is the
// machine's image. Nil: nothing, and why.
func (s *Server) offerOf(kind asker, boot string) (o *offer, note string) {
	hasIPXE := s.ipxe[fileIPXE] != nil
	switch kind {
	case askerIPXE:
		return &offer{class: classPXE, file: s.url("/" + fileScript)}, ""
	case askerPXE:
		switch {
		case hasIPXE:
			return &offer{class: classPXE, file: fileIPXE, tftp: true}, ""
		case boot != userData:
			return &offer{class: classPXE, tftp: true}, ""
		}
	case askerHTTP:
		switch {
		case boot != userData:
			return &offer{class: classHTTP}, ""
		case hasIPXE:
			return &offer{class: classHTTP, file: s.url("/" + fileIPXE)}, ""
		}
	case askerBIOS:
		if s.ipxe[fileIPXEBIOS] != nil {
			return &offer{class: classPXE, file: fileIPXEBIOS, tftp: true, menu: true}, ""
		}
		return nil, "its firmware is a BIOS, and a node boots by UEFI; for another system give iPXE by --ipxe-bios"
	default:
		return nil, "its firmware is not x86-64's"
	}
	return nil, "it has to say its serial number, or boots another system: both need iPXE, by --ipxe"
}

// put puts an offer into an answer. A DHCP server leaves a PXE client's class out: with it
// EDK II takes it for one of the two that a ProxyDHCP needs.
func (o *offer) put(res, req *dhcpv4.DHCPv4, server net.IP, proxy bool) {
	if proxy || o.class == classHTTP {
		res.UpdateOption(dhcpv4.OptClassIdentifier(o.class))
	}
	res.BootFileName = o.file
	if o.class == classHTTP {
		res.UpdateOption(dhcpv4.OptBootFileName(o.file))
	}
	if o.tftp || proxy {
		res.ServerIPAddr, res.ServerHostName = server, server.String()
	}
	if o.menu {
		res.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	}
	if id := req.Options.Get(dhcpv4.OptionClientMachineIdentifier); id != nil { // RFC 4578, 2.3
		res.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
}

// answer is what a client is answered; nil: nothing. again: it asks at port 4011.
func (s *Server) answer(req *dhcpv4.DHCPv4, again bool) *dhcpv4.DHCPv4 {
	if req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet || parseMAC(req.ClientHWAddr.String()) == "" {
		return nil
	}
	if s.pool != nil && !again {
		return s.lease(req)
	}
	kind, message := askerOf(req), dhcpv4.MessageTypeOffer
	switch ask := req.MessageType(); {
	case kind == askerNone:
		return nil
	case again && (ask == dhcpv4.MessageTypeRequest || ask == dhcpv4.MessageTypeInform):
		message = dhcpv4.MessageTypeAck
	case again || ask != dhcpv4.MessageTypeDiscover: // the DHCP server's
		return nil
	}
	o := s.offer(req, kind)
	if o == nil {
		return nil
	}
	res, err := s.reply(req, message)
	if err != nil {
		return nil
	}
	o.put(res, req, s.addr.AsSlice(), true)
	return res
}

// reply begins an answer.
func (s *Server) reply(req *dhcpv4.DHCPv4, message dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	return dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(message), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.addr.AsSlice())))
}

// destination is where an answer goes: RFC 2131, 4.1. A client without an address is
// reached by broadcast. Nil: it came from elsewhere than it says.
func (s *Server) destination(req, res *dhcpv4.DHCPv4) *net.UDPAddr {
	local := func(ip net.IP) bool { return s.o.Address.Contains(addrOf(ip)) }
	switch {
	case !req.GatewayIPAddr.IsUnspecified():
		if s.pool != nil && !local(req.GatewayIPAddr) {
			return nil // its addresses are none of ours
		}
		return &net.UDPAddr{IP: req.GatewayIPAddr, Port: dhcpv4.ServerPort}
	case res.MessageType() != dhcpv4.MessageTypeNak && local(req.ClientIPAddr):
		return &net.UDPAddr{IP: req.ClientIPAddr, Port: dhcpv4.ClientPort}
	}
	return &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
}

// maxPacket is more than a DHCP request can have, bytes.
const maxPacket = 4096

// serveDHCP answers until ctx ends; again: on port 4011, to whom has an address.
func (s *Server) serveDHCP(ctx context.Context, conn net.PacketConn, again bool) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // a read that waits ends with it
	defer stop()
	packet := make([]byte, maxPacket)
	for {
		n, from, err := conn.ReadFrom(packet)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("serving DHCP: %w", err)
		}
		req, err := dhcpv4.FromBytes(bytes.Clone(packet[:n]))
		if err != nil {
			s.metrics.dhcp("malformed")
			continue
		}
		res := s.answer(req, again)
		if res == nil {
			continue
		}
		to := from
		if !again {
			d := s.destination(req, res)
			if d == nil {
				continue
			}
			to = d
		}
		if _, err := conn.WriteTo(res.ToBytes(), to); err != nil && ctx.Err() == nil {
			s.tell.sayOnce(Event{Via: "dhcp", What: broken, MAC: req.ClientHWAddr.String(), Note: err.Error()})
		}
	}
}
