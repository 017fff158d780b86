//go:build linux

package component_test

import (
	"context"
	"encoding/binary"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// inside is set in the process that has a network of its own.
const inside = "IMGBUILD_TEST_INSIDE"

// TestStranger loads the rules into this kernel, in a network name space, and has
// a stranger knock at every port on IPv4 and IPv6: what answers is exactly what
// the plan declares, for each role and pod network, and while the rules are loaded
// again. No machine is booted; test/cluster does the same on booted nodes.
func TestStranger(t *testing.T) {
	if os.Getenv(inside) != "" {
		strangerInside(t)
		return
	}
	if testing.Short() {
		t.Skip("scans for a minute: left out by -short")
	}
	space := []string{"--net", "--map-root-user"}
	probe := "test -w /dev/net/tun && nft -f - <<<'table inet x { chain y { type filter hook input priority filter; ct state established accept; }; }'"
	if err := run.Run(t.Context(), run.Cmd{Name: "unshare", Args: append(space, "bash", "-c", probe)}); err != nil {
		t.Skipf("this kernel gives no name space with packet filter and TAP: %v", err)
	}
	update := "-update=" + flag.Lookup("update").Value.String()
	out, err := run.Output(t.Context(), run.Cmd{Name: "unshare", Args: append(space, os.Args[0], "-test.run=^TestStranger$", "-test.v", update), Env: []string{inside + "=1"}})
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// strangerInside runs where the network is nobody else's.
func strangerInside(t *testing.T) {
	s := network(t)
	for _, port := range []string{"22", "6443", "10250", "10257"} {
		l, err := net.Listen("tcp", ":"+port)
		must(t, err)
		t.Cleanup(func() { l.Close() })
	}
	of := func(role string, sets ...string) kit.Target {
		return kit.Target{Role: role, IP: "10.0.0.10", Declared: decide(t, role, sets...).Ports}
	}
	// Without rules the stranger sees what is not declared: he would see a window.
	master := of("master")
	must(t, s.Sweep(t.Context(), master.Probes("tcp", 22, 23, 6443), 100))
	if leaks := master.Leaks(s.Heard()); len(leaks) != 4 {
		t.Fatalf("without rules a stranger gets the answers %q, want ports 22 and 23 of both addresses", leaks)
	}
	must(t, run.Run(t.Context(), run.Cmd{Name: "nft", Args: []string{"add", "table", "ip", "kube-proxy"}}))
	nftLoad(t, file(decide(t, "master"), firewallFile).Text)
	t.Run("again and again", func(t *testing.T) { loadedAgain(t, s, master) })
	t.Run("through the tunnel", func(t *testing.T) { tunnelled(t, s, master) })
	rows := "| node | family | protocol | open | let in, nobody listens | declared, silent |\n|---|---|---|---|---|---|\n"
	for _, c := range []struct {
		name, role string
		sets       []string
	}{
		{"master", "master", nil}, {"worker", "worker", nil},
		{"no pod network", "master", firewallCases["no pod network"]}, {"flannel on host-gw", "worker", firewallCases["flannel on host-gw"]},
		{"calico", "worker", calico}, {"cilium", "worker", cilium}, {"ssh and ports", "worker", firewallCases["ssh and ports"]},
	} {
		t.Run(c.name, func(t *testing.T) {
			nftLoad(t, file(decide(t, c.role, c.sets...), firewallFile).Text)
			for _, proto := range []string{"tcp", "udp"} {
				s.Forget()
				target := of(c.role, c.sets...)
				target.Role = c.name
				result, err := target.Scan(t.Context(), s, proto, 60000)
				must(t, err)
				if leaks := target.Leaks(result.Heard); len(leaks) > 0 {
					t.Errorf("lets in what nobody declared: %q", leaks[:min(len(leaks), 20)])
				}
				for _, addr := range target.Addrs() {
					if silent := result.Silent(addr); len(silent) > 0 {
						t.Errorf("%s keeps %s %q to itself", addr, proto, silent)
					}
				}
				rows += result.Rows()
			}
		})
	}
	recorded(t, rows)
	if out, err := run.Output(t.Context(), run.Cmd{Name: "nft", Args: []string{"list", "tables"}}); err != nil || string(out) != "table ip kube-proxy\ntable inet imgbuild\n" {
		t.Errorf("the tables are\n%s(%v)", out, err)
	}
}

// recorded holds the scan against the one that docs/firewall.md shows.
func recorded(t *testing.T, rows string) {
	const record = "testdata/scan.md"
	if flag.Lookup("update").Value.String() == "true" && !t.Failed() {
		must(t, os.WriteFile(record, []byte(rows), 0o600))
	}
	want, err := os.ReadFile(record)
	must(t, err)
	if diff := cmp.Diff(string(want), rows); diff != "" {
		t.Errorf("a stranger sees other ports (-want +got):\n%s", diff)
	}
}

// tunnelled knocks through flannel's VXLAN, which knows no sender: what is wrapped
// gets no further than what is sent openly.
func tunnelled(t *testing.T, s *vnet.Scanner, target kit.Target) {
	const mac = "02:00:00:00:00:01"
	for _, line := range []string{"link add flannel.1 address " + mac + " type vxlan id 1 dstport 8472 nolearning", "link set flannel.1 up"} {
		must(t, run.Run(t.Context(), run.Cmd{Name: "ip", Args: strings.Fields(line)}))
	}
	defer func() {
		must(t, run.Run(context.Background(), run.Cmd{Name: "ip", Args: []string{"link", "del", "flannel.1"}}))
	}()
	for _, trusted := range []bool{false, true} {
		if trusted { // what rules would do that let everything in that comes by the tunnel's link
			must(t, run.Run(t.Context(), run.Cmd{Name: "nft", Args: strings.Fields("insert rule inet imgbuild input iifname flannel.1 accept")}))
		}
		s.Forget()
		must(t, s.KnockThrough(t.Context(), vnet.VXLAN{ID: 1, Port: 8472, MAC: mac}, target.Probes("tcp", 22, 6443, 10257)[:3]))
		heard := s.Heard()
		if want := map[bool]int{false: 1, true: 3}[trusted]; len(heard) != want || heard[target.Probes("tcp", 6443)[0]] != vnet.Open {
			t.Errorf("through the tunnel (trusted: %v) a stranger hears %v, want %d answers, the API's among them", trusted, heard, want)
		}
	}
}

// loads of the same rules show a window that is open once in fifty of them.
const loads = 300

// loadedAgain loads the same rules again and again under the stranger's knocking.
func loadedAgain(t *testing.T, s *vnet.Scanner, target kit.Target) {
	g := (&kit.Cluster{Stranger: s}).Guard(t.Context(), 20000, target)
	for range loads {
		nftLoad(t, file(decide(t, "master"), firewallFile).Text)
	}
	knocks, err := g.Stop()
	must(t, err)
	heard := s.Heard()
	if leaks := target.Leaks(heard); len(leaks) > 0 {
		t.Errorf("answered while the rules were loaded: %q", leaks)
	}
	if heard[target.Probes("tcp", 6443)[0]] != vnet.Open || knocks < 1000 {
		t.Errorf("the stranger knocked %d times and heard %v", knocks, heard)
	}
	t.Logf("%d knocks while the rules were loaded %d times", knocks, loads)
}

func nftLoad(t *testing.T, rules string) {
	t.Helper()
	must(t, run.Run(t.Context(), run.Cmd{Name: "nft", Args: []string{"-f", "-"}, Stdin: strings.NewReader(rules)}))
}

// network puts this process on a virtual network as 10.0.0.10, by a TAP device,
// and a stranger beside it.
func network(t *testing.T) *vnet.Scanner {
	path := filepath.Join(t.TempDir(), "n")
	n, err := vnet.Serve(vnet.Options{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}, path)
	must(t, err)
	t.Cleanup(func() { n.Close() })
	tap := openTAP(t, "eth0")
	mac, err := vnet.MAC("10.0.0.10")
	must(t, err)
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0o600))
	for name, value := range map[string]string{ // closed UDP ports tell each time
		"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0", "ipv4/icmp_msgs_per_sec": "1000000", "ipv4/icmp_msgs_burst": "1000000"} {
		must(t, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o600))
	}
	for _, line := range []string{"link set lo up", "link set eth0 address " + mac, "link set eth0 up", "addr add 10.0.0.10/24 dev eth0"} {
		must(t, run.Run(t.Context(), run.Cmd{Name: "ip", Args: strings.Fields(line)}))
	}
	conn, err := net.Dial("unix", path)
	must(t, err)
	go func() {
		var size [4]byte
		for {
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(size[:]))
			if _, err := io.ReadFull(conn, frame); err != nil {
				return
			}
			_, _ = tap.Write(frame)
		}
	}()
	go func() {
		frame := make([]byte, 2048)
		for {
			n, err := tap.Read(frame[4:])
			if err != nil {
				return
			}
			binary.BigEndian.PutUint32(frame, uint32(n))
			_, _ = conn.Write(frame[:4+n])
		}
	}()
	if conn, err := net.DialTimeout("tcp", "10.0.0.1:9", time.Second); err == nil { // any frame: the switch knows us by it
		conn.Close()
	}
	s, err := vnet.NewScanner(path, "10.0.0.99")
	must(t, err)
	return s
}

// openTAP makes a TAP device (Documentation/networking/tuntap.rst).
func openTAP(t *testing.T, name string) *os.File {
	const noPacketInfo, tapDevice = 0x1000, 0x2
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	must(t, err)
	var request [40]byte // struct ifreq
	copy(request[:15], name)
	binary.NativeEndian.PutUint16(request[16:], tapDevice|noPacketInfo)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
	return os.NewFile(uintptr(fd), "tap")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
