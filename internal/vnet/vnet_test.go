package vnet

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMAC(t *testing.T) {
	if got, err := MAC("10.0.0.10"); err != nil || got != "52:54:00:00:00:0a" {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "ten", "fe80::1"} {
		if _, err := MAC(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func start(t *testing.T, forwards map[string]string) (*Net, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n")
	n, err := Serve(Options{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", Forwards: forwards}, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, path
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestServeIsPrivateAndEnds(t *testing.T) {
	from := freePort(t)
	n, path := start(t, map[string]string{from: "10.0.0.10:6443"})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a machine still has its link")
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the network still listens")
	}
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatalf("the forwarded port is still taken: %v", err)
	}
	l.Close()
}

func TestBadOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"is no IPv4 address of":   {Subnet: "10.0.0.0/24", Gateway: "10.0.1.1"},
		"want a loopback address": {Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", Forwards: map[string]string{"0.0.0.0:0": "10.0.0.10:6443"}},
		"want an IPv4 address":    {Subnet: "10.0.0.0/24", Gateway: "10.0.0.1", Forwards: map[string]string{"127.0.0.1:0": "6443"}},
	} {
		if _, err := Serve(o, filepath.Join(t.TempDir(), "n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", o, err, want)
		}
	}
	if _, err := Serve(Options{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}, "/tmp/"+strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("a long path: %v", err)
	}
}

func TestDHCP(t *testing.T) {
	_, path := start(t, nil)
	got := newPeer(t, path, "10.0.0.11").dhcp()
	for name, pair := range map[string][2]string{
		"address": {got.YourIPAddr.String(), "10.0.0.11"},
		"router":  {got.Router()[0].String(), "10.0.0.1"},
		"DNS":     {got.DNS()[0].String(), "10.0.0.1"},
		"mask":    {net.IP(got.SubnetMask()).String(), "255.255.255.0"},
		"name":    {got.HostName(), ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", name, pair[0], pair[1])
		}
	}
}

func TestDialAndForward(t *testing.T) {
	from := freePort(t)
	n, path := start(t, map[string]string{from: "10.0.0.10:6443"})
	newPeer(t, path, "10.0.0.10").echo(6443)
	inside, err := n.Dial(limited(t), "10.0.0.10:6443")
	if err != nil {
		t.Fatal(err)
	}
	outside, err := net.Dial("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"dial": inside, "forward": outside} {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		text := strings.Repeat("0123456789abcdef", 4096) // many frames
		go func() {
			io.WriteString(conn, text)
			conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		if got, err := io.ReadAll(conn); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes came back, want %d: %v", name, len(got), len(text), err)
		}
		conn.Close()
	}
}

func TestPeersReachEachOther(t *testing.T) {
	_, path := start(t, nil)
	a, b := newPeer(t, path, "10.0.0.10"), newPeer(t, path, "10.0.0.11")
	const vxlan = 8472
	there := b.udp(vxlan)
	a.send("10.0.0.11", vxlan, "from a")
	if got := receive(t, there); got != "from a" {
		t.Errorf("got %q", got)
	}
	if got := a.tcp(b, 10250, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// A machine that hangs must not take the network with it.
func TestDeafMachine(t *testing.T) {
	_, path := start(t, nil)
	deaf, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	a, b := newPeer(t, path, "10.0.0.10"), newPeer(t, path, "10.0.0.11")
	for range 3 * portQueue {
		a.broadcast()
	}
	if got := a.tcp(b, 10250, "hello"); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestBroadcast has a machine without an address of its server's find that.
func TestBroadcast(t *testing.T) {
	_, path := start(t, nil)
	server, client := newPeer(t, path, "10.0.0.5"), newPeer(t, path, "10.0.0.9")
	client.tcp(server, 7, "both are connected") // nobody repeats what is broadcast
	asked, err := server.ListenBroadcast(67)
	must(t, err)
	defer asked.Close()
	asks, err := client.ListenBroadcast(68)
	must(t, err)
	defer asks.Close()
	everybody := func(port int) net.Addr { return &net.UDPAddr{IP: net.IPv4bcast, Port: port} }
	_, err = asks.WriteTo([]byte("who?"), everybody(67))
	must(t, err)
	for _, hop := range []struct {
		conn net.PacketConn
		want string
	}{{asked, "who?"}, {asks, "I"}} {
		hop.conn.SetDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 10)
		n, _, err := hop.conn.ReadFrom(buf)
		if err != nil || string(buf[:n]) != hop.want {
			t.Fatalf("%q, %v, want %q", buf[:n], err, hop.want)
		}
		_, err = asked.WriteTo([]byte("I"), everybody(68))
		must(t, err)
	}
}
