// Package serve boots machines from the network: by UEFI HTTP boot, PXE and iPXE, each with
// the netboot image of its role, in which it finds what it alone is told. That is handed
// out by one-time URLs. It answers beside a DHCP server, or is a small one.
package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/lease"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Options is one run.
type Options struct {
	Dir       string // of the outputs
	Inventory string // file
	Address   netip.Prefix
	HTTPPort  int
	DHCP      string // DHCPProxy, DHCPFull or DHCPOff
	// Of the full DHCP server.
	First, Last netip.Addr
	Gateway     netip.Addr // none: not valid
	DNS         []netip.Addr
	IPXE        string // file: iPXE for UEFI; empty: its firmware loads images by itself
	IPXEBIOS    string // file: iPXE for BIOS
	Once        bool   // a machine gets its config one time
	Installed   string // file of the machines that are installed; empty: beside the inventory
	Tell        func(Event)
	// Open opens a netboot image; nil: as imgbuild builds them.
	Open func(file string) (Image, error)
}

// What --dhcp can be.
const (
	DHCPProxy = "proxy"
	DHCPFull  = "full"
	DHCPOff   = "off"
)

// Server serves one folder to one network.
type Server struct {
	o         Options
	http      string // host:port
	addr      netip.Addr
	catalogue *catalogue
	machines  *machines
	tickets   *tickets
	pool      *lease.Pool
	ipxe      map[string][]byte // by the name that they are served by
	slots     chan struct{}
	metrics   *metrics
	tell      *teller
}

// maxIPXE bounds an iPXE, bytes: it is held in memory.
const maxIPXE = 16 << 20

// errUnread is all that is said to the network of a file that could not be read.
var errUnread = errors.New("what it is told cannot be read: the log of imgbuild serve says why")

// quiet drops what net/http says of single connections: what counts is told by events.
var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)

// New reads all that is to be served, and reports what is wrong with it. The caller closes it.
func New(o Options) (s *Server, err error) {
	if o.Open == nil {
		o.Open = openImage
	}
	inv, err := inventory.Read(o.Inventory)
	if err != nil {
		return nil, err
	}
	s = &Server{o: o, addr: o.Address.Addr(), http: netip.AddrPortFrom(o.Address.Addr(), uint16(o.HTTPPort)).String(), // #nosec G115 -- a port, checked by the flag
		machines: newMachines(inv, o.Once), tickets: newTickets(), ipxe: map[string][]byte{}, slots: make(chan struct{}, maxTransfers), metrics: newMetrics(), tell: newTeller(o.Tell)}
	if o.Installed == "" {
		o.Installed = o.Inventory + ".installed"
	}
	if s.machines.installed, err = openInstalled(o.Installed); err != nil {
		return nil, fault.Wrap(fault.Usage, err)
	}
	for name, file := range map[string]string{fileIPXE: o.IPXE, fileIPXEBIOS: o.IPXEBIOS} {
		if err := s.addIPXE(name, file); err != nil {
			return nil, err
		}
	}
	if o.DHCP == DHCPFull {
		if err := s.addPool(); err != nil {
			return nil, err
		}
	}
	if s.catalogue, err = openCatalogue(o.Dir, o.Open); err != nil {
		return nil, err
	}
	if err := s.checkInventory(inv); err != nil {
		s.catalogue.Close()
		return nil, err
	}
	return s, nil
}

// Close closes the files that are served.
func (s *Server) Close() { s.catalogue.Close() }

func (s *Server) addIPXE(name, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file) // #nosec G304 -- the file that the user names
	if err != nil {
		return fault.New(fault.Usage, "reading iPXE: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(f, maxIPXE+1))
	if err != nil || len(text) > maxIPXE || name == fileIPXE && !bytes.HasPrefix(text, []byte("MZ")) {
		return fault.New(fault.Usage, "%s: it is no iPXE: for UEFI want ipxe.efi or snponly.efi, for BIOS undionly.kpxe (Debian's package ipxe has them)", errors.Join(errors.New(file), err))
	}
	s.ipxe[name] = text
	return nil
}

// mint is a machine's ticket; that it cannot be read is told here alone.
func (s *Server) mint(m *machine, boot, addr string) (*ticket, error) {
	t, err := s.tickets.mint(m, boot, read)
	if err != nil {
		s.tell.say(Event{What: refused, Machine: m.name, Note: err.Error()})
		return nil, err
	}
	s.machines.step(m, phaseAsked, addr, repro.Now())
	return t, nil
}

// sizeOf is how many bytes a ticket's file has.
func (s *Server) sizeOf(t *ticket) int64 {
	if t.boot == userData {
		return t.size
	}
	return s.catalogue.images[t.of.m.Role].Size()
}

func contentType(t *ticket) string {
	if t.boot == userData {
		return "text/plain; charset=utf-8"
	}
	return "application/efi" // UEFI 2.10, 24.7.3: what firmware takes for a program
}

// content is a ticket's file; what is wrong with it is told here alone.
func (s *Server) content(t *ticket, one told) (io.ReadSeeker, error) {
	if t.boot == userData {
		return bytes.NewReader(one.userData), nil
	}
	r, err := s.catalogue.images[t.of.m.Role].Reader(one.stamp, s.order(t.boot, t.of.m, t.id))
	if err != nil {
		s.tell.say(Event{What: refused, Machine: t.of.name, Note: err.Error()})
	}
	return r, err
}

// ended is the end of a transfer of n bytes.
func (s *Server) ended(t *ticket, file string, n, size int64) (whole bool) {
	whole = s.tickets.end(t, file, n, size)
	s.machines.count(t.of, file, n)
	if whole {
		s.machines.step(t.of, phaseFetched, "", repro.Now())
	}
	return whole
}

// Sockets are what a server listens on; nil: it does not.
type Sockets struct {
	HTTP, Admin           net.Listener
	TFTP, DHCP, BootServe net.PacketConn // BootServe: port 4011, where PXE asks a ProxyDHCP server again
}

// Close closes them.
func (k *Sockets) Close() {
	for _, c := range []io.Closer{k.HTTP, k.Admin, k.TFTP, k.DHCP, k.BootServe} {
		if c != nil {
			_ = c.Close() // some are closed by then
		}
	}
}

// Run serves until ctx ends, or one of the sockets fails. It closes the sockets.
func (s *Server) Run(ctx context.Context, k *Sockets) error {
	group, ctx := errgroup.WithContext(ctx)
	serve := func(there bool, f func() error) {
		if there {
			group.Go(f)
		}
	}
	serve(k.HTTP != nil, func() error { return s.serveHTTP(ctx, k.HTTP, s.handler()) })
	serve(k.Admin != nil, func() error { return s.serveHTTP(ctx, k.Admin, s.admin()) })
	serve(k.TFTP != nil, func() error { return s.serveTFTP(ctx, k.TFTP) })
	serve(k.DHCP != nil, func() error { return s.serveDHCP(ctx, k.DHCP, false) })
	serve(k.BootServe != nil, func() error { return s.serveDHCP(ctx, k.BootServe, true) })
	s.tell.say(Event{What: "serving", Note: s.summary()})
	err := group.Wait()
	k.Close()
	return err
}

func (s *Server) summary() string {
	others := "others are refused"
	if s.machines.other != nil {
		others = "others get the default"
	}
	names := map[string]bool{}
	for _, m := range s.machines.known {
		names[m.Name] = true
	}
	dhcp := map[string]string{DHCPProxy: "beside a DHCP server", DHCPFull: "as the DHCP server", DHCPOff: "without DHCP"}[s.o.DHCP]
	return fmt.Sprintf("%s to %d machines, %s; %s, %s", strings.ReplaceAll(s.catalogue.roles(), " and ", ", "), len(names), others, s.url("/"+fileScript), dhcp)
}
