package vnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// forward is a port of the host that leads to a port of a machine.
type forward struct {
	net.Listener
	to string
}

// listenForwards opens the host's ports, all or none. Only loopback addresses are
// taken: what a test machine serves is nobody else's business.
func listenForwards(forwards map[string]string) ([]forward, error) {
	var out []forward
	undo := func(err error) ([]forward, error) {
		for _, f := range out {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	for from, to := range forwards {
		host, err := netip.ParseAddrPort(from)
		if err != nil || !host.Addr().IsLoopback() {
			return undo(fmt.Errorf("forwarding %s: want a loopback address and a port, such as 127.0.0.1:6443", from))
		}
		if guest, err := netip.ParseAddrPort(to); err != nil || !guest.Addr().Is4() || guest.Port() == 0 {
			return undo(fmt.Errorf("forwarding %s to %s: want an IPv4 address and a port", from, to))
		}
		l, err := net.Listen("tcp", from)
		if err != nil {
			return undo(fmt.Errorf("forwarding %s: %w", from, err))
		}
		out = append(out, forward{l, to})
	}
	return out, nil
}

// forward serves one forwarded port until it is closed.
func (n *Net) forward(ctx context.Context, f forward) {
	for {
		conn, err := f.Accept()
		if err != nil {
			return // closed
		}
		if !n.track(conn) {
			_ = conn.Close()
			return
		}
		go func() {
			defer n.drop(conn)
			guest, err := n.Dial(ctx, f.to)
			if err != nil {
				return // the machine does not listen; the host's side sees a closed connection
			}
			defer guest.Close() //nolint:errcheck // both ways have ended
			join(conn, guest)
		}()
	}
}

// join copies both ways until both have ended. The end of one way is passed on
// alone, so that an answer still gets through.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, err := io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok && err == nil {
				_ = half.CloseWrite()
				return
			}
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
}
