// Package hosts boots systems that imgbuild did not build, with the configs that it
// writes for them, and wants them to become nodes of a cluster.
package hosts

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

const (
	masterIP, cloudIP, ignitionIP = "10.0.0.10", "10.0.0.20", "10.0.0.21"
	filesIP                       = "10.0.0.30" // where the payloads are served
	limit                         = 25 * time.Minute
)

// What the stock systems have: what Debian's images for clouds have, and the packages
// that a config asks for, for a machine may have no way to a mirror.
const (
	needed = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,systemd-resolved,iproute2,ca-certificates,conntrack,ethtool,iptables,nftables,socat"
	cloud  = needed + ",cloud-init,netplan.io,sudo,e2fsprogs,openssh-server"
	coreos = needed + ",dracut,dracut-network,ignition,curl"
)

// coreosHook makes of a Debian what systems with Ignition are: the network comes by
// DHCP, Ignition runs in the RAM disk, and the first boot is one for systemd, too, which
// then does what Ignition's presets say: there is no machine id at all, for mmdebstrap
// empties the file that is there, and an empty one is no first boot's. Debian's build of it calls setfiles, asked or
// not: there is no SELinux, so what it calls does nothing.
const coreosHook = `set -eu
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' > "$1/etc/systemd/network/20-dhcp.network"
printf '#!/bin/sh\n' > "$1/usr/sbin/setfiles"
chmod 755 "$1/usr/sbin/setfiles"
mkdir -p "$1/etc/selinux"
echo SELINUXTYPE=none > "$1/etc/selinux/config"
chroot "$1" systemctl enable systemd-networkd systemd-resolved
rm -f "$1"/boot/initrd.img-*
chroot "$1" dracut --quiet --force --no-hostonly --kver "$(ls "$1/lib/modules")" --add "ignition systemd-networkd" \
	--add-drivers "qemu_fw_cfg virtio_net virtio_blk virtio_pci ext4" /boot/initrd.img-ignition
rm -f "$1/var/lib/dbus/machine-id" "$1/etc/machine-id"
`

// site is a master of ours, the network, and a server of files on it.
type site struct {
	*kit.Site
	out   string
	api   *kit.API
	files http.ServeMux // what is served
}

// TestHosts makes workers of two stock Debians, in one cluster with a master of ours.
func TestHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("boots three machines: left out by -short")
	}
	if os.Getuid() != 0 {
		t.Skip("the stock systems' files must belong to root")
	}
	s := newSite(t)
	_, err := s.Imgbuild(t.Context(), "worker", "-o", s.out, "--base", "debian", "--format", "nocloud,ignition,sysext,sysext-images",
		"--join-url", "http://"+filesIP+"/once/worker.yaml", "--set", "host.payload=http://"+filesIP, "--set", "host.images=true")
	kit.Must(t, err)
	if info, err := os.Stat(filepath.Join(s.out, "worker.ign")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("who can read the config can read the URL of the node config: %v, %v", info, err)
	}
	s.serveOnce(t, identity.WorkerFile)
	s.boot(t, boottest.Node{Name: "master", Image: s.image(t), IP: masterIP, Memory: 3328, CPUs: 2}, identity.MasterFile)
	t.Run("cloud-init", s.cloudInit)
	t.Run("ignition", s.ignition)
}

// cloudInit has a NoCloud seed make a worker; the seed says where its node config is.
func (s *site) cloudInit(t *testing.T) {
	disk, kernel, initrd := s.debian(t, cloud, "")
	m := s.boot(t, boottest.Node{Name: "cloud", Image: disk, IP: cloudIP, Memory: 2560, CPUs: 2, Kernel: kernel, Initrd: initrd,
		Cmdline: "root=/dev/vda rw console=ttyS0,115200n8", Extra: []string{filepath.Join(s.out, "worker.cidata.iso")}}, "")
	s.Until(t, limit, "cloud-init is done", m, "cloud-init status --wait >/dev/null; cloud-init status | grep -q done")
	s.Until(t, limit, "the schema of cloud-init accepts the config", m, "cloud-init schema --system")
	s.joined(t, m)
	kit.Must(t, m.PowerOff(t.Context()))
}

// ignition has Ignition, run from the initrd, make a worker by a config in fw_cfg.
func (s *site) ignition(t *testing.T) {
	disk, kernel, initrd := s.debian(t, coreos, coreosHook)
	m := s.boot(t, boottest.Node{Name: "coreos", Image: disk, IP: ignitionIP, Memory: 2560, CPUs: 2, Kernel: kernel, Initrd: initrd,
		Cmdline:  "root=/dev/vda rw console=ttyS0,115200n8 ignition.firstboot=1 ignition.platform.id=qemu rd.neednet=1 ip=dhcp systemd.firstboot=no",
		Ignition: filepath.Join(s.out, "worker.ign")}, "")
	s.joined(t, m)
}

// joined wants a host to be a worker as one from a disk image is.
func (s *site) joined(t *testing.T, m *boottest.Machine) {
	t.Helper()
	s.Until(t, limit, "both payloads are merged", m, "systemd-sysext status --json=short | grep -q kubernetes-images-worker && kubeadm version -o short")
	s.Until(t, limit, "the first boot is done", m, `grep -q '"committed"' /run/imgbuild/status.json`)
	name, err := m.Sh(t.Context(), "cat /proc/sys/kernel/hostname")
	kit.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.api.Until(ctx, func(ctx context.Context) error {
		var node kit.Object
		if err := s.api.Get(ctx, "/api/v1/nodes/"+name, &node); err != nil || node.Ready() {
			return err
		}
		return errors.New("it is not Ready")
	}); err != nil {
		t.Fatalf("%v\n%s", err, m.Tail(40))
	}
	s.Told(t, "%s is Ready", name)
	for what, script := range map[string]string{
		"the filter is in force":              "nft list chain inet imgbuild input | grep -q 'dport 10250'",
		"settings are in force":               "[ $(cat /proc/sys/net/bridge/bridge-nf-call-iptables) = 1 ] && [ $(cat /proc/sys/vm/overcommit_memory) = 1 ]",
		"no unit has failed":                  "! systemctl --failed --no-legend --plain | grep .",
		"images were not pulled":              "crictl images -o json | grep -q kube-proxy && ! journalctl -u containerd | grep -q 'PullImage'",
		"the filter comes before all":         "systemctl is-enabled -q imgbuild-firewall systemd-sysext kubernetes-payload",
		"systemd finds no fault in the units": "! systemd-analyze verify --man=no kubernetes-payload.service imgbuild-firewall.service imgbuild-firstboot.service containerd.service kubelet.service 2>&1 | grep -E '^(/etc|/usr/lib)/systemd/system/(imgbuild|containerd|kubelet)'",
		"nft accepts the filter":              "nft -c -f /etc/imgbuild/firewall.nft",
		"kubeadm's preflight is clean":        "! grep -E '\\[(WARNING|ERROR)' /var/lib/imgbuild/firstboot/kubeadm-*preflight.log && grep -q '\"warnings\": \\[\\]' /run/imgbuild/status.json",
		"the node config is here no more":     "! test -e /etc/credstore/imgbuild.node",
		"its token is nowhere":                "! grep -rlsE '[a-z0-9]{6}\\.[a-z0-9]{16}' /var/lib/cloud /etc/credstore /var/log /run/ignition.json /etc/.ignition-result.json",
	} {
		if out, err := m.Sh(t.Context(), script); err != nil {
			t.Errorf("%s: %v %s", what, err, out)
		}
	}
}

// serveOnce puts a node config where the configs say it is, for each machine once.
func (s *site) serveOnce(t *testing.T, config string) {
	t.Helper()
	text := s.Config(t, config)
	var mu sync.Mutex
	given := map[string]bool{}
	s.files.HandleFunc("/once/"+config, func(w http.ResponseWriter, r *http.Request) {
		machine, _, _ := strings.Cut(r.RemoteAddr, ":")
		mu.Lock()
		again := given[machine]
		given[machine] = true
		mu.Unlock()
		if again {
			http.Error(w, "once is enough", http.StatusGone)
			return
		}
		_, _ = w.Write(text)
	})
}

func newSite(t *testing.T) *site {
	t.Helper()
	ctx := t.Context()
	s := &site{Site: kit.NewSite(t)}
	s.out = filepath.Join(s.Dir, "out")
	_, err := s.Imgbuild(ctx, "cluster", "new", "hosts", "--endpoint", masterIP+":6443", "--dir", filepath.Join(s.Dir, "cluster"))
	kit.Must(t, err)
	files, err := vnet.NewHost(s.Socket, filesIP)
	kit.Must(t, err)
	t.Cleanup(func() { _ = files.Close() })
	l, err := files.Listen(80)
	kit.Must(t, err)
	s.files.Handle("/", http.FileServer(http.Dir(s.out)))
	go http.Serve(l, &s.files) //nolint:errcheck,gosec // until the host goes
	s.api, err = s.NewAPI(ctx, kit.Dialer(s.Net), 20*time.Second)
	kit.Must(t, err)
	return s
}

func (s *site) image(t *testing.T) string {
	t.Helper()
	file, err := s.Image(t.Context(), "master", "raw")
	kit.Must(t, err)
	return file
}

// debian makes a stock system: a file system without a boot loader, its kernel and its
// RAM disk.
func (s *site) debian(t *testing.T, packages, hook string) (disk, kernel, initrd string) {
	t.Helper()
	root := t.TempDir()
	disk = filepath.Join(s.Dir, filepath.Base(t.Name())+".raw")
	make := run.Cmd{Name: "mmdebstrap", Args: []string{"--mode=root", "--variant=apt", "--include=" + packages}}
	if hook != "" {
		script := filepath.Join(root, "hook")
		kit.Must(t, os.WriteFile(script, []byte(hook), 0o700))
		make.Args = append(make.Args, "--customize-hook=sh "+script+` "$1"`)
	}
	root = filepath.Join(root, "root")
	make.Args = append(make.Args, "trixie", root)
	for _, c := range []run.Cmd{make, {Name: "mke2fs", Args: []string{"-q", "-t", "ext4", "-L", "root", "-d", root, disk, "6G"}}} {
		c.Stderr = os.Stderr
		kit.Must(t, run.Run(t.Context(), c))
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
	if config != "" {
		n.Config, n.Via = s.Config(t, config), "smbios"
	}
	m := s.Start(t, n)
	s.Told(t, "%s is powered on", n.Name)
	return m
}
