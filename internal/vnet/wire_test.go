//go:build linux

package vnet

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

// wireEnv says that the test runs in a network name space of its own.
const wireEnv = "IMGBUILD_TEST_WIRE"

// TestWire has the kernel talk to two hosts by an interface.
func TestWire(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("this kernel makes no TAP interfaces: ", err)
	}
	if os.Getenv(wireEnv) == "" {
		args := []string{"--net", os.Args[0], "-test.run=^TestWire$"}
		if os.Geteuid() != 0 {
			args = append([]string{"--map-root-user"}, args...)
		}
		if said, err := run.Output(t.Context(), run.Cmd{Name: "unshare", Args: args, Env: []string{wireEnv + "=1"}}); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		return
	}
	must(t, run.Run(t.Context(), run.Cmd{Name: "sh", Args: []string{"-ec", "ip tuntap add tap0 mode tap; ip addr add 10.0.0.1/24 dev tap0; ip link set tap0 up"}}))
	path := filepath.Join(t.TempDir(), "wire")
	w, err := NewWire("tap0", path)
	must(t, err)
	for _, ip := range []string{"10.0.0.11", "10.0.0.12"} {
		host, err := NewHost(path, ip)
		must(t, err)
		defer host.Close() //nolint:errcheck // the test is over
		listener, err := host.Listen(80)
		must(t, err)
		go func() {
			if conn, err := listener.Accept(); err == nil {
				_, _ = io.WriteString(conn, ip)
				_ = conn.Close()
			}
		}()
	}
	for _, ip := range []string{"10.0.0.12", "10.0.0.11"} {
		conn, err := net.Dial("tcp", ip+":80")
		must(t, err)
		if said, err := io.ReadAll(conn); err != nil || string(said) != ip {
			t.Errorf("%s says %q, %v", ip, said, err)
		}
	}
	must(t, w.Close())
	if _, err := NewWire("no/such", path); err == nil {
		t.Error("an interface that is not there is taken")
	}
}
