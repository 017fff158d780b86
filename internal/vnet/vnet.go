// Package vnet is one Ethernet network for several virtual machines, wholly in
// this process and without root: a switch, DHCP, DNS and NAT, by
// gvisor-tap-vsock. Machines connect over a unix socket with QEMU's stream
// protocol. It knows nothing of what the machines are.
//
// DHCP gives address, mask, router, DNS server (both the gateway) and MTU, but
// no host name. DNS and NAT pass on what the host can reach; without any, the
// machines still reach each other.
package vnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	"github.com/sirupsen/logrus"
)

// Options describe a network. Gateway answers DHCP and DNS.
type Options struct {
	Subnet   string            // 10.0.0.0/24
	Gateway  string            // 10.0.0.1
	Forwards map[string]string // host address → guest address, both host:port; the host's must be a loopback address
}

// Net is a running network.
type Net struct {
	inner    *virtualnetwork.VirtualNetwork
	listener net.Listener
	cancel   context.CancelFunc

	mu      sync.Mutex
	closers map[io.Closer]bool // forwards, and everything that is connected; nil when closed
}

const mtu = 1500

// maxPath is what a unix socket's address has room for, without its final zero.
const maxPath = 107

// MAC is the hardware address of the machine that shall get ip: leases are fixed
// by it, so that nothing has to be declared ahead.
func MAC(ip string) (string, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil || !addr.Is4() {
		return "", fmt.Errorf("%q is no IPv4 address", ip)
	}
	b := addr.As4()
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", b[1], b[2], b[3]), nil
}

// Serve starts the network and listens for machines on the unix socket at path,
// which only this user can connect to. The caller closes the network.
func Serve(o Options, path string) (*Net, error) {
	n, err := serve(o, path)
	if err != nil {
		return nil, fmt.Errorf("starting the virtual network: %w", err)
	}
	return n, nil
}

func serve(o Options, path string) (*Net, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("%s: a socket's path has at most %d bytes: take a shorter one", path, maxPath)
	}
	leases, err := leases(o)
	if err != nil {
		return nil, err
	}
	forwards, err := listenForwards(o.Forwards)
	if err != nil {
		return nil, err
	}
	undo := func(err error) error {
		for _, f := range forwards {
			err = errors.Join(err, f.Close())
		}
		return err
	}
	logrus.SetOutput(io.Discard) // the library's own log; errors come back as values
	inner, err := virtualnetwork.New(&types.Configuration{
		MTU: mtu, Subnet: o.Subnet, GatewayIP: o.Gateway, GatewayMacAddress: "5a:94:ef:e4:0c:01",
		DHCPStaticLeases: leases, Protocol: types.QemuProtocol,
	})
	if err != nil {
		return nil, undo(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, undo(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, undo(errors.Join(err, listener.Close()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Net{inner: inner, listener: listener, cancel: cancel, closers: map[io.Closer]bool{}}
	go n.accept(ctx)
	for _, f := range forwards {
		n.track(f)
		go n.forward(ctx, f)
	}
	return n, nil
}

// leases fixes an address for every MAC that this package gives out.
func leases(o Options) (map[string]string, error) {
	subnet, err := netip.ParsePrefix(o.Subnet)
	if err != nil {
		return nil, err
	}
	gateway, err := netip.ParseAddr(o.Gateway)
	if err != nil || !subnet.Contains(gateway) || !gateway.Is4() {
		return nil, fmt.Errorf("the gateway %q is no IPv4 address of %s", o.Gateway, o.Subnet)
	}
	out := map[string]string{}
	for addr := subnet.Masked().Addr().Next(); subnet.Contains(addr) && len(out) < 250; addr = addr.Next() {
		if addr != gateway {
			if out[addr.String()], err = MAC(addr.String()); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (n *Net) accept(ctx context.Context) {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			return // closed
		}
		p := newPort(conn)
		if !n.track(p) {
			_ = p.Close()
			return
		}
		go func() {
			defer n.drop(p)
			_ = n.inner.AcceptQemu(ctx, p) // a machine that leaves is no error
		}()
	}
}

// track notes what Close has to close; false when that has happened already.
func (n *Net) track(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closers == nil {
		return false
	}
	n.closers[c] = true
	return true
}

func (n *Net) drop(c io.Closer) {
	_ = c.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.closers, c)
}

// Dial connects to addr, host:port, from the gateway.
func (n *Net) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return n.inner.DialContextTCP(ctx, addr)
}

// Listen opens a port of the gateway, addr being host:port, to which machines can
// connect. The caller closes it.
func (n *Net) Listen(addr string) (net.Listener, error) { return n.inner.Listen("tcp", addr) }

// Close ends the network: its socket is gone, forwarded ports are free, machines
// lose their link. A second Close does nothing.
func (n *Net) Close() error {
	n.cancel()
	n.mu.Lock()
	closers := n.closers
	n.closers = nil
	n.mu.Unlock()
	if closers == nil {
		return nil
	}
	err := n.listener.Close()
	for c := range closers {
		_ = c.Close() // one that has just ended by itself is no error
	}
	return err
}
