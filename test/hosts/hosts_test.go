// Package hosts boots systems that imgbuild did not build, with the configs that it
// writes for them, and wants them to become nodes of a cluster.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

const (
	masterIP, workerIP = "10.0.0.10", "10.0.0.20"
	filesIP            = "10.0.0.30" // where the payloads are served
	limit              = 25 * time.Minute
)

// stock are the packages of the stock system: what Debian's images for clouds have,
// and what the config asks for, since the machine has no way to a mirror.
const stock = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,cloud-init,netplan.io,systemd-resolved,iproute2,ca-certificates,sudo," +
	"conntrack,ethtool,iptables,nftables,socat"

// site is a master of ours, the network, and a server of files on it.
type site struct {
	kit    kit.Kit
	out    string // what is served
	socket string
	api    *kit.API
	began  time.Time
}

// TestCloudInit makes a worker of a stock Debian by a NoCloud seed.
func TestCloudInit(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	if os.Getuid() != 0 {
		t.Skip("the stock system's files must belong to root")
	}
	s := newSite(t)
	disk, kernel, initrd := s.debian(t)
	_, err := s.kit.Imgbuild(t.Context(), "worker", "-o", s.out, "--base", "debian", "--format", "nocloud,sysext,sysext-images",
		"--set", "host.payload=http://"+filesIP, "--set", "host.images=true")
	must(t, err)
	must(t, os.Chmod(s.out, 0o755))
	master := s.boot(t, boottest.Node{Name: "master", Image: s.image(t), IP: masterIP, Memory: 3328, CPUs: 2}, identity.MasterFile)
	worker := s.boot(t, boottest.Node{Name: "worker", Image: disk, IP: workerIP, Memory: 2560, CPUs: 2, Kernel: kernel, Initrd: initrd,
		Cmdline: "root=/dev/vda rw console=ttyS0,115200n8", Extra: []string{filepath.Join(s.out, "worker.cidata.iso")}}, identity.WorkerFile)
	s.until(t, "cloud-init is done", worker, "cloud-init status --wait >/dev/null; cloud-init status | grep -q done")
	s.until(t, "the schema of cloud-init accepts the config", worker, "cloud-init schema --system")
	s.until(t, "both payloads are merged", worker, "systemd-sysext status --json=short | grep -q kubernetes-images-worker && kubeadm version -o short")
	s.until(t, "the first boot is done", worker, `grep -q '"committed"' /run/imgbuild/status.json`)
	name, err := worker.Sh(t.Context(), "cat /proc/sys/kernel/hostname")
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.api.Until(ctx, func(ctx context.Context) error {
		var node kit.Object
		if err := s.api.Get(ctx, "/api/v1/nodes/"+name, &node); err != nil || node.Ready() {
			return err
		}
		return errors.New("it is not Ready")
	}); err != nil {
		t.Fatalf("%v\n%s\n%s", err, worker.Tail(40), master.Tail(20))
	}
	s.told(t, "%s is Ready", name)
	for what, script := range map[string]string{
		"the filter is in force":       "nft list chain inet imgbuild input | grep -q 'dport 10250'",
		"settings are in force":        "[ $(cat /proc/sys/net/bridge/bridge-nf-call-iptables) = 1 ] && [ $(cat /proc/sys/vm/overcommit_memory) = 1 ]",
		"no unit has failed":           "! systemctl --failed --no-legend --plain | grep .",
		"images were not pulled":       "crictl images -o json | grep -q kube-proxy && ! journalctl -u containerd | grep -q 'PullImage'",
		"the filter comes before all":  "systemctl is-enabled -q imgbuild-firewall systemd-sysext imgbuild-payload",
		"nothing is left to be merged": "systemd-sysext status | grep -q kubernetes",
	} {
		if out, err := worker.Sh(t.Context(), script); err != nil {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx, dir := t.Context(), t.TempDir()
	s := &site{kit: kit.Kit{Bin: filepath.Join(dir, "bin"), Dir: dir, Said: os.Stderr}, out: filepath.Join(dir, "out"), began: time.Now()}
	must(t, s.kit.BuildTools(ctx, "../.."))
	_, err := s.kit.Imgbuild(ctx, "cluster", "new", "hosts", "--endpoint", masterIP+":6443", "--dir", filepath.Join(dir, "cluster"))
	must(t, err)
	scratch, err := os.MkdirTemp("", "imgbuild-net-") // a socket's path must be short
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(scratch) })
	s.socket = filepath.Join(scratch, "net.sock")
	net, err := vnet.Serve(vnet.Options{Subnet: boottest.Subnet, Gateway: boottest.Gateway}, s.socket)
	must(t, err)
	t.Cleanup(func() { _ = net.Close() })
	files, err := vnet.NewHost(s.socket, filesIP)
	must(t, err)
	t.Cleanup(func() { _ = files.Close() })
	l, err := files.Listen(80)
	must(t, err)
	go http.Serve(l, http.FileServer(http.Dir(s.out))) //nolint:errcheck,gosec // until the host goes
	s.api, err = s.kit.NewAPI(ctx, kit.Dialer(net), 20*time.Second)
	must(t, err)
	return s
}

func (s *site) image(t *testing.T) string {
	t.Helper()
	file, err := s.kit.Image(t.Context(), "master", "raw")
	must(t, err)
	return file
}

// debian makes the stock system: a file system without a boot loader, its kernel and
// its RAM disk.
func (s *site) debian(t *testing.T) (disk, kernel, initrd string) {
	t.Helper()
	root := filepath.Join(s.kit.Dir, "debian")
	disk = filepath.Join(s.kit.Dir, "debian.raw")
	for _, c := range []run.Cmd{
		{Name: "mmdebstrap", Args: []string{"--mode=root", "--variant=apt", "--include=" + stock, "trixie", root}},
		{Name: "mke2fs", Args: []string{"-q", "-t", "ext4", "-L", "root", "-d", root, disk, "6G"}},
	} {
		c.Stderr = os.Stderr
		must(t, run.Run(t.Context(), c))
	}
	for name, to := range map[string]*string{"vmlinuz-*": &kernel, "initrd.img-*": &initrd} {
		found, err := filepath.Glob(filepath.Join(root, "boot", name))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %q, %v", name, found, err)
		}
		*to = found[0]
	}
	return disk, kernel, initrd
}

func (s *site) boot(t *testing.T, n boottest.Node, config string) *boottest.Machine {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.kit.Dir, "cluster", config))
	must(t, err)
	n.Config, n.Via = data, "smbios"
	m, err := boottest.Start(t.Context(), n, filepath.Join(s.kit.Dir, "machines"), s.socket, true)
	must(t, err)
	t.Cleanup(func() { _ = m.Kill() })
	s.told(t, "%s is powered on", n.Name)
	return m
}

// until waits until a script succeeds in the machine, and tells when.
func (s *site) until(t *testing.T, stage string, m *boottest.Machine, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := m.Until(ctx, 3*time.Second, script); err != nil {
		t.Fatalf("%s: %v %s\n%s", stage, err, out, m.Tail(60))
	}
	s.told(t, "%s", stage)
}

func (s *site) told(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("%4.0f s  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
