package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder/serve"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// serveOptions are `imgbuild serve`'s flags.
type serveOptions struct {
	serve.Options
	serve.Ports
	address, addresses, gateway string
	dns                         []string
}

// newServeCmd is `imgbuild serve`.
func newServeCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Boot machines from the network with the images in a folder",
		Long: `Boot machines from the network, by UEFI HTTP boot, PXE and iPXE, with the netboot
images in DIR. An inventory says who is who; each machine gets what it alone is told
by a one-time URL, and installs the image onto its disk or runs from memory:

  imgbuild worker -o out --format netboot,raw.zst
  imgbuild serve out --inventory machines.yaml --interface eth1

It answers beside the DHCP server that is there (--dhcp proxy), or is a small one
(--dhcp full). What happens is told on standard error, with --output json as lines
of JSON on standard output. It runs until it is interrupted.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Dir = args[0]
			if err := o.check(); err != nil {
				return err
			}
			return runServe(cmd, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Inventory, "inventory", "", "`file` that lists the machines")
	f.StringVar(&o.Interface, "interface", "", "interface that machines are on (default: the only one)")
	f.StringVar(&o.address, "address", "", "this host's address on it (default: the only one)")
	f.StringVar(&o.DHCP, "dhcp", serve.DHCPProxy, "proxy (beside a DHCP server), full (be one) or off")
	f.StringVar(&o.addresses, "range", "", "`FIRST-LAST`: addresses that --dhcp full hands out, such as 10.0.0.100-10.0.0.200")
	f.StringVar(&o.gateway, "gateway", "", "router that --dhcp full names")
	f.StringSliceVar(&o.dns, "dns", nil, "name servers that --dhcp full names")
	f.StringVar(&o.IPXE, "ipxe", "", "iPXE `file` for UEFI PXE, such as ipxe.efi: images then come by HTTP (default: by TFTP)")
	f.StringVar(&o.IPXEBIOS, "ipxe-bios", "", "iPXE `file` for BIOS, such as undionly.kpxe: for other systems than a node's")
	f.IntVar(&o.HTTPPort, "http-port", 8080, "port of HTTP")
	f.IntVar(&o.TFTP, "tftp-port", 69, "port of TFTP; 0: none")
	f.StringVar(&o.Admin, "admin", "127.0.0.1:8081", "`address` of /metrics and /status, which say what machines there are; empty: none")
	f.BoolVar(&o.Once, "once", false, "hand out a machine's config one time only; after that it boots from its disk")
	f.StringVar(&o.Installed, "installed", "", "`file` of the machines that are installed, which boot from their disks (default: the inventory's name with .installed)")
	return cmd
}

// check finds what is wrong with the flags.
func (o *serveOptions) check() (err error) {
	if o.Inventory == "" {
		return fault.New(fault.Usage, "serve: say who the machines are: --inventory FILE")
	}
	if o.HTTPPort < 1 || o.HTTPPort > 65535 || o.TFTP < 0 || o.TFTP > 65535 {
		return fault.New(fault.Usage, "--http-port %d --tftp-port %d: want ports, 1 to 65535", o.HTTPPort, o.TFTP)
	}
	full := o.DHCP == serve.DHCPFull
	switch {
	case o.DHCP != serve.DHCPProxy && o.DHCP != serve.DHCPOff && !full:
		return fault.New(fault.Usage, "--dhcp %s: proxy, full or off", o.DHCP)
	case full && o.addresses == "":
		return fault.New(fault.Usage, "--dhcp full: say which addresses it hands out: --range 10.0.0.100-10.0.0.200")
	case !full && (o.addresses+o.gateway != "" || len(o.dns) > 0):
		return fault.New(fault.Usage, "--range, --gateway and --dns are for --dhcp full")
	case o.Admin != "":
		if _, _, err := net.SplitHostPort(o.Admin); err != nil {
			return fault.New(fault.Usage, "--admin %s: want an address and a port, such as 127.0.0.1:8081", o.Admin)
		}
	}
	if full {
		if err := o.checkFull(); err != nil {
			return err
		}
	}
	o.Interface, o.Address, err = serve.Network(o.Interface, o.address)
	return err
}

func (o *serveOptions) checkFull() (err error) {
	parse := func(flag, text string) netip.Addr {
		a, wrong := netip.ParseAddr(text)
		if (wrong != nil || !a.Is4()) && err == nil {
			err = fault.New(fault.Usage, "%s: %q is no IPv4 address", flag, text)
		}
		return a
	}
	first, last, _ := strings.Cut(o.addresses, "-")
	o.First, o.Last = parse("--range", first), parse("--range", last)
	if o.gateway != "" {
		o.Gateway = parse("--gateway", o.gateway)
	}
	for _, text := range o.dns {
		o.DNS = append(o.DNS, parse("--dns", text))
	}
	return err
}

func runServe(cmd *cobra.Command, o *serveOptions) error {
	var mu sync.Mutex
	lines := json.NewEncoder(cmd.OutOrStdout())
	o.Tell = func(e serve.Event) {
		mu.Lock()
		defer mu.Unlock()
		if asJSON(cmd) {
			_ = lines.Encode(e) // who reads it may be gone; machines are not
			return
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", e.Time.Format("15:04:05"), e)
	}
	s, err := serve.New(o.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	sockets, err := serve.Listen(cmd.Context(), o.Options, o.Ports)
	if err != nil {
		return err
	}
	return s.Run(cmd.Context(), sockets)
}
