package boottest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/imgbuild/imgbuild/internal/vnet"
)

// JoinNet makes sure that a network is served on the unix socket: it serves it,
// with forwards (see ParseForward), unless another process does; then the network
// is nil and forwards must be empty, as only the server can forward. A socket
// that nobody serves any more is replaced; any other file is left alone.
func JoinNet(socket string, forwards map[string]string) (*vnet.Net, error) {
	if Served(socket) {
		if len(forwards) > 0 {
			return nil, fmt.Errorf("another process serves the network %s: forward ports there", socket)
		}
		return nil, nil
	}
	info, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is no socket: name another path for the network", socket)
	default:
		if err := os.Remove(socket); err != nil { // left by a process that was killed
			return nil, err
		}
	}
	return vnet.Serve(vnet.Options{Subnet: Subnet, Gateway: Gateway, Forwards: forwards}, socket)
}

// Served says whether a process serves a network on the unix socket.
func Served(socket string) bool {
	conn, err := net.Dial("unix", socket)
	return err == nil && conn.Close() == nil
}

// ParseForward reads HOST:PORT=[IP:]PORT, such as 127.0.0.1:6443=6443, and
// returns both addresses. Without an IP the guest's is ip.
func ParseForward(text, ip string) (from, to string, err error) {
	from, to, ok := strings.Cut(text, "=")
	if !strings.Contains(to, ":") {
		to = net.JoinHostPort(ip, to)
	}
	host, err1 := netip.ParseAddrPort(from)
	guest, err2 := netip.ParseAddrPort(to)
	if !ok || errors.Join(err1, err2) != nil || host.Port() == 0 || guest.Port() == 0 {
		return "", "", fmt.Errorf("%q: want HOST:PORT=PORT or HOST:PORT=IP:PORT, such as 127.0.0.1:6443=6443", text)
	}
	if !host.Addr().IsLoopback() {
		return "", "", fmt.Errorf("%q: ports are forwarded from loopback addresses alone, such as 127.0.0.1", text)
	}
	return from, to, nil
}
