package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// Ports says what a server listens on.
type Ports struct {
	Interface string // of DHCP
	TFTP      int    // 0: no TFTP
	Admin     string // host:port; empty: none
}

// The ports of DHCP (RFC 2131), and of PXE's second question (PXE 2.1, 2.2.3).
const portDHCP, portBootServer = 67, 4011

// Network finds the interface and the address that machines reach: those named, else the
// only ones that this host has.
func Network(name, address string) (string, netip.Prefix, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", netip.Prefix{}, err
	}
	type place struct {
		name   string
		prefix netip.Prefix
	}
	var fit, have []place
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return "", netip.Prefix{}, err
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || !p.Addr().Is4() {
				continue
			}
			have = append(have, place{i.Name, p})
			wanted := name == i.Name || name == "" && (address != "" || i.Flags&net.FlagLoopback == 0)
			if wanted && i.Flags&net.FlagUp != 0 && (address == "" || address == p.Addr().String()) {
				fit = append(fit, place{i.Name, p})
			}
		}
	}
	if len(fit) == 1 || len(fit) > 1 && name != "" {
		return fit[0].name, fit[0].prefix, nil
	}
	var text []string
	for _, h := range have {
		text = append(text, h.name+" ("+h.prefix.String()+")")
	}
	why := "say by --interface or --address which network machines are on"
	if len(fit) == 0 {
		why = fmt.Sprintf("no interface that is up has what --interface %q and --address %q say", name, address)
	}
	return "", netip.Prefix{}, fault.New(fault.Usage, "%s; this host has %s", why, strings.Join(text, ", "))
}

// Listen opens the sockets of a server, all or none. The caller closes them, or has Run do it.
func Listen(ctx context.Context, o Options, p Ports) (k *Sockets, err error) {
	k = &Sockets{}
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	addr := o.Address.Addr().String()
	if k.HTTP, err = listen(ctx, net.JoinHostPort(addr, strconv.Itoa(o.HTTPPort)), "--http-port"); err != nil {
		return k, err
	}
	if p.Admin != "" {
		if k.Admin, err = listen(ctx, p.Admin, "--admin"); err != nil {
			return k, err
		}
	}
	if p.TFTP != 0 {
		if k.TFTP, err = listenPacket(ctx, net.JoinHostPort(addr, strconv.Itoa(p.TFTP)), "", "TFTP: --tftp-port 0 leaves it out"); err != nil {
			return k, err
		}
	}
	if o.DHCP == DHCPOff {
		return k, nil
	}
	if k.DHCP, err = listenPacket(ctx, ":"+strconv.Itoa(portDHCP), p.Interface, "DHCP: where this host has a DHCP server, let that offer "+fileScript+", and say --dhcp off"); err != nil {
		return k, err
	}
	if o.DHCP == DHCPProxy {
		k.BootServe, err = listenPacket(ctx, ":"+strconv.Itoa(portBootServer), p.Interface, "PXE")
	}
	return k, err
}

func listen(ctx context.Context, addr, flag string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.New(fault.Usage, "%s: %w", flag, err)
	}
	return l, nil
}

// listenPacket opens a UDP port, of one interface where one is named.
func listenPacket(ctx context.Context, addr, device, what string) (net.PacketConn, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if device == "" {
			return nil
		}
		var bound error
		err := raw.Control(func(fd uintptr) { bound = bindTo(int(fd), device) })
		return errors.Join(err, bound)
	}}
	l, err := c.ListenPacket(ctx, "udp4", addr)
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf("%w: run as root, or with CAP_NET_BIND_SERVICE", err)
	}
	if err != nil {
		return nil, fault.New(fault.Usage, "%w: it is wanted for %s", err, what)
	}
	return l, nil
}
