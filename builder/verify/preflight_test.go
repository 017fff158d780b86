package verify_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/containerd"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const (
	pause     = "registry.k8s.io/pause:3.10.2"
	kubeProxy = "registry.k8s.io/kube-proxy:v1.37.2"
	coreDNS   = "registry.k8s.io/coredns/coredns:v1.13.1"
	facts     = `{"role":"worker","kubernetesVersion":"1.37.2","images":["` + pause + `","` + kubeProxy + `","` + coreDNS + `"]}`
	settings  = "kernel.panic = 10\nkernel.panic_on_oops = 1\nvm.overcommit_memory = 1\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.default.forwarding = 1\nnet.bridge.bridge-nf-call-iptables = 1\nkernel.keys.root_maxkeys = 1000000\nkernel.keys.root_maxbytes = 25000000\n"
	options   = "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_BPF CGROUP_PIDS CGROUP_SCHED CPUSETS MEMCG INET PROC_FS FAIR_GROUP_SCHED EXT4_FS NETFILTER_XT_TARGET_REDIRECT NETFILTER_XT_MATCH_COMMENT OVERLAY_FS"
)

// config is the kernel's configuration with every option that kubeadm requires.
var config = "CONFIG_" + strings.ReplaceAll(options, " ", "=y\nCONFIG_") + "=m\n"

// fit makes of a sealed tree what the replay of kubeadm's preflight takes for a node.
func fit(t testing.TB, tr *tree.Tree) {
	t.Helper()
	for _, name := range strings.Fields("containerd runc crictl ip nft mount losetup nsenter conntrack ethtool ebtables socat tc touch cp modprobe hostnamectl systemctl") {
		put(t, tr, "usr/bin/"+name, "ELF", 0o755)
	}
	for _, name := range []string{"kubeadm", "kubectl", "kubelet"} {
		put(t, tr, "usr/bin/"+name, "ELF v1.37.2 ELF", 0o755)
	}
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
		"etc/imgbuild/node.json":               facts,
		"usr/lib/modules/6.12.1/config":        config,
		"usr/lib/modules-load.d/imgbuild.conf": "dm_verity\noverlay\n",
		"usr/lib/sysctl.d/50-default.conf":     "# the distribution's\nkernel.panic = 0\nvm/panic_on_oom=0\n",
		"usr/lib/sysctl.d/90-imgbuild.conf":    settings,
		"etc/containerd/config.toml":           "version = 3\nsandbox = '" + pause + "'\nSystemdCgroup = true\n",
		"etc/fstab":                            "# /dev/sda2 none swap sw 0 0\n",
		"usr/lib/imgbuild/imgbuild-firstboot":  "ELF cgroupDriver: systemd ELF",
	} {
		put(t, tr, p, text, 0o644)
	}
	if err := tr.Put("etc/kubernetes", tree.Node{Mode: fs.ModeDir | 0o755}); err != nil {
		t.Fatal(err)
	}
	onboard(t, tr, pause, kubeProxy, coreDNS)
}

// onboard puts images of two layers each on board, as the real writer does.
func onboard(t testing.TB, tr *tree.Tree, names ...string) {
	t.Helper()
	digest := func(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
	var images []containerd.Image
	for _, name := range names {
		config := fmt.Sprintf(`{"of":%q,"rootfs":{"type":"layers","diff_ids":[%q,%q]}}`, name, digest("one of "+name), digest("two of "+name))
		manifest := fmt.Sprintf(`{"of":%q,"schemaVersion":2,"config":{"digest":%q}}`, name, digest(config))
		images = append(images, containerd.Image{Name: name, MediaType: "application/vnd.oci.image.manifest.v1+json", Manifest: []byte(manifest), Config: []byte(config)})
	}
	state, err := containerd.Make(context.Background(), images)
	if err != nil {
		t.Fatal(err)
	}
	tr.Remove(stateDir)
	if err := tr.Put(stateDir, tree.Node{Mode: fs.ModeDir | 0o700}); err != nil {
		t.Fatal(err)
	}
	for file, data := range state.Files {
		put(t, tr, stateDir+"/"+file, string(data), 0o600)
	}
	for _, s := range state.Snapshots {
		put(t, tr, stateDir+"/"+s.Dir+"/bin/su", "of the image", 0o755|fs.ModeSetuid) // root alone gets there
	}
}

const stateDir = "usr/lib/imgbuild/containerd"

// TestPreflight breaks a node in one way each, as kubeadm would find it after the boot.
func TestPreflight(t *testing.T) {
	set := func(p, text string) func(testing.TB, *tree.Tree) {
		return func(t testing.TB, tr *tree.Tree) { put(t, tr, p, text, 0o644) }
	}
	bend := func(old, with string) func(testing.TB, *tree.Tree) { // in the one blob that has it; nothing: without the blob
		return func(t testing.TB, tr *tree.Tree) {
			for _, p := range tr.Paths() {
				if text, err := tr.ReadFile(p); err == nil && strings.Contains(p, "/blobs/") && strings.Contains(string(text), old) {
					if tr.Remove(p); with != "" {
						put(t, tr, p, strings.Replace(string(text), old, with, 1), 0o600)
					}
				}
			}
		}
	}
	remove := func(p string) func(testing.TB, *tree.Tree) {
		return func(_ testing.TB, tr *tree.Tree) { tr.Remove(p) }
	}
	const records, layers = stateDir + "/io.containerd.metadata.v1.bolt/meta.db", stateDir + "/io.containerd.snapshotter.v1.overlayfs"
	for name, c := range map[string]struct {
		change func(testing.TB, *tree.Tree)
		want   string
	}{
		"nothing":                    {func(testing.TB, *tree.Tree) {}, ""},
		"no program":                 {remove("usr/bin/conntrack"), "programs conntrack"},
		"not executable":             {set("usr/bin/socat", "x"), "programs socat"},
		"a link that dangles":        {remove("usr/sbin/xtables-nft-multi"), "programs iptables"},
		"kubeadm of another":         {func(t testing.TB, tr *tree.Tree) { put(t, tr, "usr/bin/kubeadm", "ELF v1.36.3", 0o755) }, "versions usr/bin/kubeadm"},
		"kubelet of another":         {func(t testing.TB, tr *tree.Tree) { put(t, tr, "usr/bin/kubelet", "ELF v1.36.3", 0o755) }, "versions usr/bin/kubelet"},
		"no kernel config":           {remove("usr/lib/modules/6.12.1/config"), "kernel usr/lib/modules/6.12.1/config"},
		"kernel option":              {set("usr/lib/modules/6.12.1/config", strings.ReplaceAll(config, "CONFIG_MEMCG=y\n", "")), "kernel usr/lib/modules/6.12.1/config"},
		"module that is not there":   {set("usr/lib/modules-load.d/imgbuild.conf", "overlay\nbr_netfilter\n"), "modules usr/lib/modules-load.d/imgbuild.conf"},
		"module without its file":    {set("usr/lib/modules/6.12.1/modules.dep", "k/dm-verity.ko: k/gone.ko\n"), "modules usr/lib/modules/6.12.1/modules.dep"},
		"setting overridden":         {set("etc/sysctl.d/99-mine.conf", "net.ipv4.ip_forward=0\n"), "settings net.ipv4.ip_forward"},
		"settings hidden":            {set("etc/sysctl.d/90-imgbuild.conf", strings.Replace(settings, "kernel.panic_on_oops = 1\n", "", 1)), "settings kernel.panic_on_oops"},
		"setting with slashes":       {set("etc/sysctl.d/99-mine.conf", "kernel/panic = 0\n"), "settings kernel.panic"},
		"CRI off":                    {set("etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\nsandbox = \""+pause+"\"\nSystemdCgroup = true\n"), "runtime etc/containerd/config.toml"},
		"other cgroup driver":        {set("etc/containerd/config.toml", "sandbox = \""+pause+"\"\nSystemdCgroup = false\n"), "runtime etc/containerd/config.toml"},
		"other sandbox image":        {set("etc/containerd/config.toml", "sandbox = \"registry.k8s.io/pause:3.9\"\nSystemdCgroup = true\n"), "runtime etc/containerd/config.toml"},
		"swap in fstab":              {set("etc/fstab", "/dev/sda2 none swap sw 0 0\n"), "swap etc/fstab"},
		"swap.target":                {remove("etc/systemd/system/swap.target"), "swap etc/systemd/system/swap.target"},
		"kubelet not enabled":        {remove("etc/systemd/system/multi-user.target.wants/kubelet.service"), "units kubelet.service"},
		"an image less":              {func(t testing.TB, tr *tree.Tree) { onboard(t, tr, kubeProxy, coreDNS) }, "images " + pause},
		"an image that is not named": {set("etc/imgbuild/node.json", strings.Replace(facts, `"`+kubeProxy+`",`, "", 1)), "images registry.k8s.io/kube-proxy"},
		"a master without its own":   {set("etc/imgbuild/node.json", strings.Replace(facts, "worker", "master", 1)), "images registry.k8s.io/kube-apiserver images registry.k8s.io/kube-controller-manager images registry.k8s.io/kube-scheduler images registry.k8s.io/etcd"},
		"no pod network":             {set("etc/imgbuild/node.json", strings.Replace(facts, `"role"`, `"cni":"flannel","role"`, 1)), "images ghcr.io/flannel-io/flannel"},
		"a layer less":               {remove(layers + "/snapshots/2"), "images " + coreDNS},
		"a manifest that lies":       {bend(`"of":"`+pause+`","schemaVersion":2`, `"schemaVersion":3`), "images " + pause},
		"a configuration less":       {bend(`"of":"`+pause+`","rootfs"`, ""), "images " + pause},
		"no records":                 {remove(records), "images " + records},
		"the records are cut":        {set(records, "\x00\x00"), "images " + records},
		"no records of layers":       {set(layers+"/metadata.db", strings.Repeat("\x00", 16384)), "images " + layers + "/metadata.db"},
		"everybody's programs":       {func(_ testing.TB, tr *tree.Tree) { n, _ := tr.Get(stateDir); n.Mode = fs.ModeDir | 0o755 }, "modes " + stateDir},
		"old cluster":                {set("etc/kubernetes/kubelet.conf", "x"), "fresh etc/kubernetes/kubelet.conf"},
		"no name":                    {set("etc/imgbuild/node.json", "{"), "node etc/imgbuild/node.json"},
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
