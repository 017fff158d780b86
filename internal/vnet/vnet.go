// Package vnet is one Ethernet network for several virtual machines, wholly in
// this process and without root: a switch, DHCP, DNS and NAT, by
// gvisor-tap-vsock. Machines connect over a unix socket with QEMU's stream
// protocol. It knows nothing of what the machines are.
package vnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	"github.com/sirupsen/logrus"
)

// Options describe a network. Gateway answers DHCP and DNS.
type Options struct {
	Subnet   string            // 10.0.0.0/24
	Gateway  string            // 10.0.0.1
	Forwards map[string]string // host address → guest address, both host:port
}

// Net is a running network.
type Net struct {
	inner    *virtualnetwork.VirtualNetwork
	listener net.Listener
	cancel   context.CancelFunc
}

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

// Serve starts the network and listens for machines on the unix socket at path.
func Serve(o Options, path string) (*Net, error) {
	leases, err := leases(o)
	if err != nil {
		return nil, err
	}
	logrus.SetOutput(io.Discard) // the library's own log; errors come back as values
	inner, err := virtualnetwork.New(&types.Configuration{
		MTU: 1500, Subnet: o.Subnet, GatewayIP: o.Gateway, GatewayMacAddress: "5a:94:ef:e4:0c:01",
		DHCPStaticLeases: leases, Forwards: maps.Clone(o.Forwards), Protocol: types.QemuProtocol,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the virtual network: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("starting the virtual network: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Net{inner, listener, cancel}
	go n.accept(ctx)
	return n, nil
}

func leases(o Options) (map[string]string, error) {
	subnet, err := netip.ParsePrefix(o.Subnet)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for addr := subnet.Addr().Next(); subnet.Contains(addr) && len(out) < 250; addr = addr.Next() {
		if addr.String() != o.Gateway {
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
		go n.inner.AcceptQemu(ctx, conn) //nolint:errcheck // a machine that leaves is no error
	}
}

// Dial connects to addr, host:port, from the gateway.
func (n *Net) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return n.inner.DialContextTCP(ctx, addr)
}

// Close ends the network; machines on it lose their link.
func (n *Net) Close() error {
	n.cancel()
	return n.listener.Close()
}
