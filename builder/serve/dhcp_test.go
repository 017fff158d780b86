package serve

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// discover is what firmware of a kind broadcasts.
func discover(t testing.TB, mac, class string, arch iana.Arch, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	must(t, err)
	d, err := dhcpv4.NewDiscovery(hw, append([]dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)), dhcpv4.WithOption(dhcpv4.OptClientArch(arch))}, more...)...)
	must(t, err)
	got, err := dhcpv4.FromBytes(d.ToBytes())
	must(t, err)
	return got
}

const (
	pxe      = "PXEClient:Arch:00007:UNDI:003016"
	uefiHTTP = "HTTPClient:Arch:00016:UNDI:003001"
	bios     = "PXEClient:Arch:00000:UNDI:002001"
)

// TestOffer is who is offered what, beside a DHCP server. TICKET stands for any.
func TestOffer(t *testing.T) {
	withIPXE := func(o *Options) { o.IPXE, o.IPXEBIOS = o.Dir+"/ipxe.efi", o.Dir+"/undionly.kpxe" }
	user := dhcpv4.WithUserClass("iPXE", false)
	id := []byte{0, 0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	for name, c := range map[string]struct {
		change func(*Options)
		req    *dhcpv4.DHCPv4
		want   string // class and file
		said   string
	}{
		"UEFI HTTP":                   {nil, discover(t, "52:54:00:00:00:01", uefiHTTP, iana.EFI_X86_64_HTTP), "HTTPClient http://10.0.0.5:8080/m/TICKET/boot.efi", "dhcp w1 (52:54:00:00:00:01) offered boot.efi ticket"},
		"UEFI PXE":                    {nil, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64), "PXEClient m/TICKET/boot.efi", "install"},
		"UEFI PXE, arch 9":            {nil, discover(t, "52:54:00:00:00:02", pxe, iana.EFI_BC), "PXEClient m/TICKET/boot.efi", "diskless"},
		"UEFI PXE with --ipxe":        {withIPXE, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64), "PXEClient ipxe.efi", ""},
		"iPXE":                        {nil, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, user), "PXEClient http://10.0.0.5:8080/boot.ipxe", ""},
		"iPXE as RFC 3004 has it":     {nil, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, dhcpv4.WithUserClass("iPXE", true)), "PXEClient http://10.0.0.5:8080/boot.ipxe", ""},
		"iPXE on a BIOS":              {nil, discover(t, "52:54:00:00:00:04", bios, iana.INTEL_X86PC, user), "PXEClient http://10.0.0.5:8080/boot.ipxe", ""},
		"BIOS":                        {nil, discover(t, "52:54:00:00:00:01", bios, iana.INTEL_X86PC), "", "refused: its firmware is a BIOS, and a node boots by UEFI"},
		"BIOS with --ipxe-bios":       {withIPXE, discover(t, "52:54:00:00:00:01", bios, iana.INTEL_X86PC), "PXEClient ipxe.kpxe menu", ""},
		"ARM":                         {nil, discover(t, "52:54:00:00:00:01", "PXEClient:Arch:00011", iana.EFI_ARM64), "", "its firmware is not x86-64's"},
		"ARM, HTTP":                   {nil, discover(t, "52:54:00:00:00:01", "HTTPClient:Arch:00019", iana.EFI_ARM64_HTTP), "", "its firmware is not x86-64's"},
		"local":                       {nil, discover(t, "52:54:00:00:00:03", pxe, iana.EFI_X86_64), "", "w3 (52:54:00:00:00:03) boots from its disk"},
		"unknown, HTTP":               {nil, discover(t, "52:54:00:00:00:99", uefiHTTP, iana.EFI_X86_64_HTTP), "", "refused: it has to say its serial number"},
		"unknown, HTTP, --ipxe":       {withIPXE, discover(t, "52:54:00:00:00:99", uefiHTTP, iana.EFI_X86_64_HTTP), "HTTPClient http://10.0.0.5:8080/ipxe.efi", ""},
		"another system":              {withIPXE, discover(t, "52:54:00:00:00:04", pxe, iana.EFI_X86_64), "PXEClient ipxe.efi", ""},
		"another system, no iPXE":     {nil, discover(t, "52:54:00:00:00:04", pxe, iana.EFI_X86_64), "", "boots another system"},
		"by its UUID":                 {nil, discover(t, "52:54:00:00:00:77", uefiHTTP, iana.EFI_X86_64_HTTP, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, id)), "HTTPClient http://10.0.0.5:8080/m/TICKET/boot.efi", "w1 (52:54:00:00:00:77)"},
		"MAC of one, UUID of another": {nil, discover(t, "52:54:00:00:00:02", uefiHTTP, iana.EFI_X86_64_HTTP, dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, id)), "", "it is w2, by another w1"},
		"no netboot":                  {nil, discover(t, "52:54:00:00:00:01", "MSFT 5.0", iana.EFI_X86_64), "", ""},
		"multicast MAC":               {nil, discover(t, "53:54:00:00:00:01", pxe, iana.EFI_X86_64), "", ""},
		"a request for the server":    {nil, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)), "", ""},
		"an answer":                   {nil, discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, inventoryText, c.change)
			got := ""
			if res := r.answer(c.req, false); res != nil {
				res, err := dhcpv4.FromBytes(res.ToBytes())
				must(t, err)
				got = shown(t, r, res)
				if res.MessageType() != dhcpv4.MessageTypeOffer || !res.YourIPAddr.IsUnspecified() || !res.ServerIdentifier().Equal(net.IPv4(10, 0, 0, 5)) || !res.ServerIPAddr.Equal(net.IPv4(10, 0, 0, 5)) || res.TransactionID != c.req.TransactionID {
					t.Errorf("no offer of a proxy: %s", res.Summary())
				}
			}
			if got != c.want {
				t.Errorf("offered %q, want %q", got, c.want)
			}
			if said := r.said(); !strings.Contains(said, c.said) || c.said == "" && c.want == "" && said != "" {
				t.Errorf("said %q, want %q", said, c.said)
			}
		})
	}
}

// shown is what an answer has a client load.
func shown(t testing.TB, r *rig, res *dhcpv4.DHCPv4) string {
	t.Helper()
	file := res.BootFileName
	if option := res.BootFileNameOption(); option != "" && option != file {
		t.Errorf("two files: %q, %q", option, file)
	}
	for id := range r.tickets.byID {
		file = strings.ReplaceAll(file, id, "TICKET")
	}
	if res.Options.Has(dhcpv4.OptionVendorSpecificInformation) {
		file += " menu"
	}
	return strings.TrimSpace(res.ClassIdentifier() + " " + file)
}

// TestUnknown refuses, where none is known by its serial number, and says so once.
func TestUnknown(t *testing.T) {
	bare, _, _ := strings.Cut(inventoryText, "- name: w5")
	r := start(t, bare, func(o *Options) { o.IPXE = o.Dir + "/ipxe.efi" })
	for range 5 {
		if res := r.answer(discover(t, "52:54:00:00:00:99", pxe, iana.EFI_X86_64), false); res != nil {
			t.Errorf("%s", res.Summary())
		}
	}
	if n := strings.Count(r.said(), "dhcp (52:54:00:00:00:99) refused: "+errUnknown.Error()); n != 1 {
		t.Errorf("said %d times: %s", n, r.said())
	}
}

// TestBootServer answers at port 4011 what was offered, and the same.
func TestBootServer(t *testing.T) {
	r := start(t, inventoryText, nil)
	first := r.answer(discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64), false)
	again := r.answer(discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)), true)
	if again == nil || again.MessageType() != dhcpv4.MessageTypeAck || again.BootFileName != first.BootFileName || again.ClassIdentifier() != "PXEClient" {
		t.Errorf("%v", again)
	}
	if res := r.answer(discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64), true); res != nil {
		t.Errorf("a discovery at port 4011: %s", res.Summary())
	}
}

func full(o *Options) {
	o.DHCP, o.First, o.Last, o.Gateway, o.DNS = DHCPFull, netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.0.101"), netip.MustParseAddr("10.0.0.1"), []netip.Addr{netip.MustParseAddr("10.0.0.2")}
}

// TestFullServer leases addresses to who boots and who does not.
func TestFullServer(t *testing.T) {
	r := start(t, inventoryText, full)
	offer := r.answer(discover(t, "52:54:00:00:00:01", uefiHTTP, iana.EFI_X86_64_HTTP), false)
	if got := shown(t, r, offer); offer.YourIPAddr.String() != "10.0.0.100" || got != "HTTPClient http://10.0.0.5:8080/m/TICKET/boot.efi" || offer.Router()[0].String() != "10.0.0.1" || offer.DNS()[0].String() != "10.0.0.2" || net.IP(offer.SubnetMask()).String() != "255.255.255.0" || offer.IPAddressLeaseTime(0) != leaseTime {
		t.Errorf("%s: %s", got, offer.Summary())
	}
	take, err := dhcpv4.NewRequestFromOffer(offer, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(uefiHTTP)), dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64_HTTP)))
	must(t, err)
	ack := r.answer(take, false)
	if ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(offer.YourIPAddr) || ack.BootFileName != offer.BootFileName {
		t.Errorf("%s", ack.Summary())
	}
	plain := r.answer(discover(t, "52:54:00:00:00:03", "", 0), false) // its system, or a machine that is no node
	if got := shown(t, r, plain); got != "" || plain.YourIPAddr.String() != "10.0.0.101" {
		t.Errorf("%s: %s", got, plain.Summary())
	}
	pxeOffer := r.answer(discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64), false)
	if got := shown(t, r, pxeOffer); got != "m/TICKET/boot.efi" || !pxeOffer.ServerIPAddr.Equal(net.IPv4(10, 0, 0, 5)) || pxeOffer.YourIPAddr.String() != "10.0.0.100" {
		t.Errorf("%s: %s", got, pxeOffer.Summary())
	}
	if res := r.answer(discover(t, "52:54:00:00:00:55", "", 0), false); res != nil || !strings.Contains(r.said(), "every address of --range is in use") {
		t.Errorf("a third of two addresses: %v", res)
	}
	theirs := discover(t, "52:54:00:00:00:02", "", 0, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 0, 0, 100))))
	if nak := r.answer(theirs, false); nak == nil || nak.MessageType() != dhcpv4.MessageTypeNak || !nak.YourIPAddr.IsUnspecified() {
		t.Errorf("another's address: %v", nak)
	} else if to := r.destination(theirs, nak); !to.IP.Equal(net.IPv4bcast) {
		t.Errorf("a refusal goes to %s", to)
	}
	elsewhere := discover(t, "52:54:00:00:00:03", "", 0, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 9))))
	if res := r.answer(elsewhere, false); res != nil {
		t.Errorf("what is another server's: %s", res.Summary())
	}
	if inform := r.answer(discover(t, "52:54:00:00:00:07", "", 0, dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)), false); inform == nil || !inform.YourIPAddr.IsUnspecified() || inform.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
		t.Errorf("%v", inform)
	}
	if res := r.answer(discover(t, "52:54:00:00:00:01", "", 0, dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline)), false); res != nil || !strings.Contains(r.said(), "found its address in use") {
		t.Errorf("%v", res)
	}
}

// TestDestination sends answers where clients hear them, and nowhere else.
func TestDestination(t *testing.T) {
	r := start(t, inventoryText, full)
	for name, c := range map[string]struct {
		change func(*dhcpv4.DHCPv4)
		want   string
	}{
		"no address":        {func(*dhcpv4.DHCPv4) {}, "255.255.255.255:68"},
		"it has one":        {func(d *dhcpv4.DHCPv4) { d.ClientIPAddr = net.IPv4(10, 0, 0, 100) }, "10.0.0.100:68"},
		"of elsewhere":      {func(d *dhcpv4.DHCPv4) { d.ClientIPAddr = net.IPv4(192, 0, 2, 1) }, "255.255.255.255:68"},
		"relay":             {func(d *dhcpv4.DHCPv4) { d.GatewayIPAddr = net.IPv4(10, 0, 0, 1) }, "10.0.0.1:67"},
		"relay, other nets": {func(d *dhcpv4.DHCPv4) { d.GatewayIPAddr = net.IPv4(192, 0, 2, 1) }, "<nil>"},
	} {
		req := discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, c.change)
		if got := r.destination(req, r.answer(req, false)); got.String() != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestSocket answers over a socket, where what came before was noise.
func TestSocket(t *testing.T) {
	r := start(t, inventoryText, nil)
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.serveDHCP(ctx, conn, true) }()
	client, err := net.Dial("udp4", conn.LocalAddr().String())
	must(t, err)
	defer client.Close()
	client.Write([]byte("noise"))
	client.Write(make([]byte, 4000))
	client.Write(discover(t, "52:54:00:00:00:01", pxe, iana.EFI_X86_64, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)).ToBytes())
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 2000)
	n, err := client.Read(buf)
	must(t, err)
	res, err := dhcpv4.FromBytes(buf[:n])
	if err != nil || res.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("%v, %v", res, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// FuzzDHCP has the server read whatever a network sends.
func FuzzDHCP(f *testing.F) {
	r, fullServer := start(f, inventoryText+withDefault, nil), start(f, inventoryText, full)
	for _, class := range []string{pxe, uefiHTTP, bios, ""} {
		f.Add(discover(f, "52:54:00:00:00:01", class, iana.EFI_X86_64).ToBytes())
		f.Add(discover(f, "52:54:00:00:00:99", class, iana.EFI_X86_64_HTTP, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)).ToBytes())
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, s := range []*rig{r, fullServer} {
			for _, again := range []bool{false, true} {
				req, err := dhcpv4.FromBytes(packet)
				if err != nil {
					return
				}
				res := s.answer(req, again)
				if res == nil {
					continue
				}
				s.destination(req, res)
				if back, err := dhcpv4.FromBytes(res.ToBytes()); err != nil || back.TransactionID != req.TransactionID || back.OpCode != dhcpv4.OpcodeBootReply {
					t.Errorf("the answer cannot be read: %v", err)
				}
			}
		}
	})
}
