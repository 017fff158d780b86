package verify_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/tree"
)

const (
	pause    = "registry.k8s.io/pause:3.10.2"
	settings = "kernel.panic = 10\nkernel.panic_on_oops = 1\nvm.overcommit_memory = 1\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.default.forwarding = 1\nnet.bridge.bridge-nf-call-iptables = 1\nkernel.keys.root_maxkeys = 1000000\nkernel.keys.root_maxbytes = 25000000\n"
	options  = "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_BPF CGROUP_PIDS CGROUP_SCHED CPUSETS MEMCG INET PROC_FS FAIR_GROUP_SCHED EXT4_FS NETFILTER_XT_TARGET_REDIRECT NETFILTER_XT_MATCH_COMMENT OVERLAY_FS"
)

// config is the kernel's configuration with every option that kubeadm requires.
var config = "CONFIG_" + strings.ReplaceAll(options, " ", "=y\nCONFIG_") + "=m\n"

// fit makes of a sealed tree what the replay of kubeadm's preflight takes for a node.
func fit(t testing.TB, tr *tree.Tree) {
	t.Helper()
	for _, name := range strings.Fields("kubelet kubectl containerd runc crictl ip nft mount losetup nsenter conntrack ethtool ebtables socat tc touch cp modprobe hostnamectl systemctl") {
		put(t, tr, "usr/bin/"+name, "ELF", 0o755)
	}
	put(t, tr, "usr/bin/kubeadm", "ELF v1.37.2 ELF", 0o755)
	put(t, tr, "usr/sbin/xtables-nft-multi", "ELF", 0o755)
	link := func(p, target string) {
		if err := tr.Put(p, tree.Node{Mode: fs.ModeSymlink | 0o777, Link: target}); err != nil {
			t.Fatal(err)
		}
	}
	link("usr/sbin/iptables", "/etc/alternatives/iptables")
	link("etc/alternatives/iptables", "../../usr/sbin/xtables-nft-multi")
	link("etc/systemd/system/swap.target", "/dev/null")
	for _, unit := range []string{"kubelet.service", "containerd.service", "imgbuild-firstboot.service", "var.mount"} {
		link("etc/systemd/system/multi-user.target.wants/"+unit, "/usr/lib/systemd/system/"+unit)
	}
	for p, text := range map[string]string{
		"usr/lib/imgbuild/node.json":           `{"role":"worker","kubernetesVersion":"1.37.2","images":["` + pause + `"]}`,
		"usr/lib/modules/6.12.1/config":        config,
		"usr/lib/modules-load.d/imgbuild.conf": "dm_verity\noverlay\n",
		"usr/lib/sysctl.d/50-default.conf":     "# the distribution's\nkernel.panic = 0\nvm/panic_on_oom=0\n",
		"usr/lib/sysctl.d/90-imgbuild.conf":    settings,
		"etc/containerd/config.toml":           "version = 3\nsandbox = '" + pause + "'\nSystemdCgroup = true\n",
		"etc/fstab":                            "# /dev/sda2 none swap sw 0 0\n",
		"usr/lib/imgbuild/imgbuild-firstboot":  "ELF cgroupDriver: systemd ELF",
		"usr/lib/imgbuild/images.tar":          string(archive(t, pause, true)),
	} {
		put(t, tr, p, text, 0o644)
	}
	if err := tr.Put("etc/kubernetes", tree.Node{Mode: fs.ModeDir | 0o755}); err != nil {
		t.Fatal(err)
	}
}

// archive is an OCI layout as a tar, with one image of one layer, which whole says is there.
func archive(t testing.TB, name string, whole bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, text string) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	blob := func(text string, there bool) string {
		digest := fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
		if there {
			add("blobs/sha256/"+digest, text)
		}
		return "sha256:" + digest
	}
	manifest := blob(fmt.Sprintf(`{"config":{"digest":%q},"layers":[{"digest":%q}]}`, blob("{}", true), blob("a layer", whole)), true)
	add("index.json", fmt.Sprintf(`{"manifests":[{"digest":%q,"annotations":{"io.containerd.image.name":%q}}]}`, manifest, name))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPreflight breaks a node in one way each, as kubeadm would find it after the boot.
func TestPreflight(t *testing.T) {
	set := func(p, text string) func(testing.TB, *tree.Tree) {
		return func(t testing.TB, tr *tree.Tree) { put(t, tr, p, text, 0o644) }
	}
	remove := func(p string) func(testing.TB, *tree.Tree) {
		return func(_ testing.TB, tr *tree.Tree) { tr.Remove(p) }
	}
	bent := bytes.Replace(archive(t, pause, true), []byte("a layer"), []byte("a liar!"), 1)
	for name, c := range map[string]struct {
		change func(testing.TB, *tree.Tree)
		want   string
	}{
		"nothing":                  {func(testing.TB, *tree.Tree) {}, ""},
		"no program":               {remove("usr/bin/conntrack"), "programs conntrack"},
		"not executable":           {set("usr/bin/socat", "x"), "programs socat"},
		"a link that dangles":      {remove("usr/sbin/xtables-nft-multi"), "programs iptables"},
		"kubeadm of another":       {func(t testing.TB, tr *tree.Tree) { put(t, tr, "usr/bin/kubeadm", "ELF v1.36.3", 0o755) }, "versions usr/bin/kubeadm"},
		"no kernel config":         {remove("usr/lib/modules/6.12.1/config"), "kernel usr/lib/modules/6.12.1/config"},
		"kernel option":            {set("usr/lib/modules/6.12.1/config", strings.ReplaceAll(config, "CONFIG_MEMCG=y\n", "")), "kernel usr/lib/modules/6.12.1/config"},
		"module that is not there": {set("usr/lib/modules-load.d/imgbuild.conf", "overlay\nbr_netfilter\n"), "modules usr/lib/modules-load.d/imgbuild.conf"},
		"setting overridden":       {set("etc/sysctl.d/99-mine.conf", "net.ipv4.ip_forward=0\n"), "settings net.ipv4.ip_forward"},
		"settings hidden":          {set("etc/sysctl.d/90-imgbuild.conf", strings.Replace(settings, "kernel.panic_on_oops = 1\n", "", 1)), "settings kernel.panic_on_oops"},
		"setting with slashes":     {set("etc/sysctl.d/99-mine.conf", "kernel/panic = 0\n"), "settings kernel.panic"},
		"CRI off":                  {set("etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\nsandbox = \""+pause+"\"\nSystemdCgroup = true\n"), "runtime etc/containerd/config.toml"},
		"other cgroup driver":      {set("etc/containerd/config.toml", "sandbox = \""+pause+"\"\nSystemdCgroup = false\n"), "runtime etc/containerd/config.toml"},
		"other sandbox image":      {set("etc/containerd/config.toml", "sandbox = \"registry.k8s.io/pause:3.9\"\nSystemdCgroup = true\n"), "runtime etc/containerd/config.toml"},
		"swap in fstab":            {set("etc/fstab", "/dev/sda2 none swap sw 0 0\n"), "swap etc/fstab"},
		"swap.target":              {remove("etc/systemd/system/swap.target"), "swap etc/systemd/system/swap.target"},
		"kubelet not enabled":      {remove("etc/systemd/system/multi-user.target.wants/kubelet.service"), "units kubelet.service"},
		"an image less":            {set("usr/lib/imgbuild/images.tar", string(archive(t, "registry.k8s.io/other:1", true))), "images usr/lib/imgbuild/images.tar"},
		"a layer less":             {set("usr/lib/imgbuild/images.tar", string(archive(t, pause, false))), "images usr/lib/imgbuild/images.tar"},
		"a layer that lies":        {set("usr/lib/imgbuild/images.tar", string(bent)), "images usr/lib/imgbuild/images.tar images usr/lib/imgbuild/images.tar"},
		"no archive":               {remove("usr/lib/imgbuild/images.tar"), "images usr/lib/imgbuild/images.tar"},
		"the archive is cut":       {set("usr/lib/imgbuild/images.tar", string(bent[:700])), "images usr/lib/imgbuild/images.tar"},
		"old cluster":              {set("etc/kubernetes/kubelet.conf", "x"), "fresh etc/kubernetes/kubelet.conf"},
		"no name":                  {set("usr/lib/imgbuild/node.json", "{"), "node usr/lib/imgbuild/node.json"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := node(t)
			c.change(t, tr)
			if diff := cmp.Diff(c.want, strings.Join(findings(t, build(t, tr).Path), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
