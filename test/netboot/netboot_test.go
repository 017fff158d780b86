//go:build linux

// Package netboot boots machines that have firmware and an empty disk, by the network
// alone, with `imgbuild serve` in a network name space of the test's own.
package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// folderEnv names the folder of images, for the test as it runs in its name space.
const folderEnv = "IMGBUILD_TEST_NETBOOT"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

const (
	server   = "10.0.0.1"
	workerIP = "10.0.0.11"
	ipxe     = "/usr/lib/ipxe/snponly.efi"
)

// TestNetboot builds the images, and then becomes itself again where it owns the network.
func TestNetboot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	if dir := os.Getenv(folderEnv); dir != "" {
		cluster(t, kit.Kit{Bin: filepath.Join(dir, "bin"), Dir: dir, Said: os.Stderr})
		return
	}
	dir := t.TempDir()
	k := kit.Kit{Bin: filepath.Join(dir, "bin"), Dir: dir, Said: os.Stderr}
	kit.Must(t, k.BuildTools(t.Context(), "../.."))
	kit.Must(t, k.Identity(t.Context()))
	for _, role := range []string{"master", "worker"} {
		_, err := k.Image(t.Context(), role, "netboot,raw.zst")
		kit.Must(t, err)
	}
	args := []string{"--net", os.Args[0], "-test.run=^TestNetboot$", "-test.v", "-test.timeout=80m"}
	if os.Geteuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	var said bytes.Buffer
	if err := run.Run(t.Context(), run.Cmd{Name: "unshare", Args: args, Env: []string{folderEnv + "=" + dir}, Stdout: &said, Stderr: os.Stderr}); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	t.Log(said.String())
}

// site is the network, and what the server says.
type site struct {
	kit.Kit
	t     *testing.T
	began time.Time
	mu    sync.Mutex
	heard strings.Builder
}

// Write hears the server.
func (s *site) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard.Write(text)
	return os.Stderr.Write(text)
}

func (s *site) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.String()
}

func (s *site) told(format string, args ...any) {
	s.t.Logf("%4.0f s  %s", repro.Now().Sub(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// cluster installs a master by UEFI HTTP boot, boots a worker by PXE and iPXE without a
// disk, and refuses a stranger. The network loses one packet in a hundred.
func cluster(t *testing.T, k kit.Kit) {
	s := &site{Kit: k, t: t, began: repro.Now()}
	sh := func(script string) {
		kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "sh", Args: []string{"-ec", script}}))
	}
	sh("ip link set lo up; ip tuntap add tap0 mode tap; ip addr add " + server + "/24 dev tap0; ip link set tap0 up")
	wire, err := vnet.NewWire("tap0", filepath.Join(k.Dir, "wire"))
	kit.Must(t, err)
	t.Cleanup(func() { kit.Must(t, wire.Close()) })
	sh(`nft -f - <<'E'
table inet lossy {
	chain in { type filter hook input priority 0; iifname "tap0" numgen random mod 100 < 1 drop; }
	chain out { type filter hook output priority 0; oifname "tap0" numgen random mod 100 < 1 drop; }
}
E`)
	mac := func(ip string) string {
		m, err := vnet.MAC(ip)
		kit.Must(t, err)
		return m
	}
	// CoreDNS ends where it is given no server to forward to; none has to answer.
	static := func(name, ip string) string {
		file := filepath.Join(k.Dir, name+".network")
		kit.Must(t, os.WriteFile(file, []byte("[Match]\nType=ether\nKind=!*\n[Network]\nAddress="+ip+"/24\nGateway="+server+"\nDNS="+server+"\n"), 0o600))
		return file
	}
	inventory := filepath.Join(k.Dir, "machines.yaml")
	kit.Must(t, os.WriteFile(inventory, []byte(fmt.Sprintf(`apiVersion: imgbuild.dev/v1alpha1
kind: Inventory
machines:
  - {name: m1, role: master, mac: ["%s"], config: cluster/master.yaml, network: [%s], boot: install, disk: /dev/vda}
  - {name: w1, role: worker, mac: ["%s"], config: cluster/worker.yaml, network: [%s], boot: diskless}
`, mac(kit.MasterIP), filepath.Base(static("10-master", kit.MasterIP)), mac(workerIP), filepath.Base(static("10-worker", workerIP)))), 0o600))

	stop := s.serve(inventory, "--tftp-port", "0")                                      // firmware asks by PXE first, and goes on to HTTP
	stranger := s.start(boottest.Node{Name: "stranger", IP: "10.0.0.66", Memory: 1024}) // by the iPXE of QEMU's network card
	s.until("the stranger is refused", func() error { return s.hears("52:54:00:00:00:42", "refused") })
	kit.Must(t, stranger.Kill())
	master := s.start(boottest.Node{Name: "master", IP: kit.MasterIP, Memory: 4096, NoROM: true})
	s.until("the master is installed", func() error { return s.hears("installed", "m1") })
	api, err := k.NewAPI(t.Context(), func(ctx context.Context, _, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}, time.Minute)
	kit.Must(t, err)
	c := &kit.Cluster{API: api}
	s.until("the master is Ready", func() error { return c.NodeReady("m1", time.Time{})(t.Context()) })
	stop()
	stop = s.serve(inventory, "--ipxe", ipxe)
	defer stop()
	worker := s.start(boottest.Node{Name: "worker", IP: workerIP, Memory: 3072, NoROM: true})
	s.until("both nodes are Ready", func() error { return c.NodesReady(2)(t.Context()) })
	s.until("all pods run", func() error { return api.PodsReady(t.Context()) })
	for m, script := range map[*boottest.Machine]string{
		master: "findmnt -no SOURCE /var | grep -q /dev/vda && ! test -e /sys/block/loop0",
		worker: "findmnt -no FSTYPE /var | grep -qx tmpfs && findmnt -no SOURCE / | grep -q /dev/dm- && test -e /sys/block/loop0/loop/backing_file",
	} {
		if _, err := m.Sh(t.Context(), script); err != nil {
			t.Error(err)
		}
	}
	for _, secret := range []string{"token:", "BEGIN"} {
		if strings.Contains(s.said(), secret) {
			t.Errorf("the server tells %q", secret)
		}
	}
}

// serve runs the server until it is stopped.
func (s *site) serve(inventory string, more ...string) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run.Run(ctx, run.Cmd{Name: filepath.Join(s.Bin, "imgbuild"), Stderr: s, Args: append([]string{"serve", filepath.Join(s.Dir, "out"), "--inventory", inventory,
			"--interface", "tap0", "--dhcp", "full", "--range", "10.0.0.100-10.0.0.200"}, more...)})
	}()
	return func() { cancel(); <-ended }
}

// start powers a machine on whose disk is empty.
func (s *site) start(n boottest.Node) *boottest.Machine {
	s.t.Helper()
	empty := filepath.Join(s.Dir, "empty.raw")
	kit.Must(s.t, os.WriteFile(empty, make([]byte, 1<<20), 0o600))
	n.Image, n.CPUs = empty, 2
	m, err := boottest.Start(s.t.Context(), n, filepath.Join(s.Dir, "machines"), filepath.Join(s.Dir, "wire"), true)
	kit.Must(s.t, err)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", n.Name, m.Tail(40))
		}
		_ = m.Kill()
	})
	s.told("%s is powered on", n.Name)
	return m
}

// hears wants all words on one line of the server's.
func (s *site) hears(words ...string) error {
	for line := range strings.Lines(s.said()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return nil
		}
	}
	return fmt.Errorf("the server does not say %q", words)
}

// until waits for what comes by itself.
func (s *site) until(stage string, ready func() error) {
	s.t.Helper()
	for end := repro.Now().Add(limit); ; time.Sleep(2 * time.Second) {
		err := ready()
		if err == nil {
			s.told("%s", stage)
			return
		}
		if repro.Now().After(end) || errors.Is(err, syscall.EPERM) {
			s.t.Fatalf("%s: %v", stage, err)
		}
	}
}
