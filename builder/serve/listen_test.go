package serve

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/fault"
)

func TestNetwork(t *testing.T) {
	for _, c := range []struct{ name, address, want string }{
		{"lo", "", "lo 127.0.0.1/8"},
		{"lo", "127.0.0.1", "lo 127.0.0.1/8"},
		{"", "127.0.0.1", "lo 127.0.0.1/8"},
		{"lo", "10.255.0.9", `no interface that is up has what --interface "lo" and --address "10.255.0.9" say; this host has lo (127.0.0.1/8)`},
		{"eth99", "", `no interface that is up has what --interface "eth99"`},
	} {
		name, prefix, err := Network(c.name, c.address)
		got := name + " " + prefix.String()
		if err != nil {
			got = err.Error()
			if fault.KindOf(err) != fault.Usage {
				t.Errorf("%v is no mistake of the command line", err)
			}
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, %s: %s, want %s", c.name, c.address, got, c.want)
		}
	}
}

// TestListen opens all or nothing.
func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	busy := taken.Addr().(*net.TCPAddr).Port
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer udp.Close()
	free := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	o := Options{Address: netip.MustParsePrefix("127.0.0.1/8"), HTTPPort: busy, DHCP: DHCPOff}
	for want, c := range map[string]struct {
		http int
		p    Ports
	}{
		"--http-port: listen tcp 127.0.0.1:":   {busy, Ports{}},
		"--admin: listen tcp 127.0.0.1:":       {free(), Ports{Admin: taken.Addr().String()}},
		"address already in use: it is wanted": {free(), Ports{TFTP: udp.LocalAddr().(*net.UDPAddr).Port}},
	} {
		o.HTTPPort = c.http
		if _, err := Listen(t.Context(), o, c.p); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Usage {
			t.Errorf("%v, want %q", err, want)
		}
		if c.http == busy {
			continue
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(o.Address.Addr(), uint16(c.http)).String())
		if err != nil {
			t.Errorf("the port of HTTP stays open: %v", err)
			continue
		}
		l.Close()
	}
}

// TestRun serves, and stops when it is told to, with a transfer that hangs.
func TestRun(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.o.Address = netip.MustParsePrefix("127.0.0.1/8")
	k := &Sockets{}
	var err error
	k.HTTP, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	k.Admin, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	k.TFTP, err = net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	k.DHCP, err = net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	r.http = k.HTTP.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, k) }()
	hangs, err := net.Dial("tcp", r.http)
	must(t, err)
	defer hangs.Close()
	at := r.bootURL(t, "mac=52:54:00:00:00:01")
	hangs.Write([]byte("GET " + strings.TrimPrefix(at, "http://"+r.http) + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	if a := ask(t, "GET", "http://"+k.Admin.Addr().String()+"/status"); a.code != 200 || !strings.Contains(string(a.body), `"w1"`) {
		t.Errorf("%d %s", a.code, a.body)
	}
	cancel()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(endTime + 20*time.Second):
		t.Fatal("it does not stop")
	}
	if !strings.Contains(r.said(), "serving: worker to 5 machines, others are refused; ") {
		t.Errorf("%s", r.said())
	}
}
