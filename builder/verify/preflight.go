package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// nodeFile is what an image says of itself.
const nodeFile = "etc/imgbuild/node.json"

// replay is kubeadm's preflight, asked of an image at rest: what does not depend
// on the machine (ports, memory, network) can be told before anything boots.
type replay struct {
	*Report
	fsys fs.FS
	node struct {
		Role, KubernetesVersion, CNI string
		Images                       []string
	}
}

// readNode replays the preflight where the image says that it is a node.
func (r *Report) readNode(fsys fs.FS) error {
	p := &replay{Report: r, fsys: fsys}
	if err := json.Unmarshal(r.Node, &p.node); err != nil || p.node.KubernetesVersion == "" {
		r.say("node", nodeFile, "does not say which node this is (%v)", err)
		return nil
	}
	for _, check := range []func() error{p.programs, p.versions, p.kernel, p.modules, p.settings, p.runtime, p.swap, p.units, p.images, p.fresh} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// programs are those that kubeadm's FileExisting checks and the kubelet look for in PATH.
func (p *replay) programs() error {
	for _, name := range []string{"kubeadm", "kubelet", "kubectl", "containerd", "runc", "crictl", "ip", "iptables", "nft", "mount", "losetup",
		"nsenter", "conntrack", "ethtool", "ebtables", "socat", "tc", "touch", "cp", "modprobe", "hostnamectl", "systemctl"} {
		if !slices.ContainsFunc([]string{"usr/bin/", "usr/sbin/", "usr/local/bin/"}, func(dir string) bool {
			_, info, err := p.find(dir + name)
			return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
		}) {
			p.say("programs", name, "is not in the image")
		}
	}
	return nil
}

// find follows symbolic links inside the image, absolute ones too.
func (p *replay) find(name string) (string, fs.FileInfo, error) {
	for range 16 {
		info, err := fs.Lstat(p.fsys, name)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return name, info, err
		}
		target, err := fs.ReadLink(p.fsys, name)
		if err != nil {
			return name, nil, err
		}
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(name), target)
		}
		name = strings.TrimPrefix(path.Clean(target), "/")
	}
	return name, nil, fmt.Errorf("%s: too many links", name)
}

// versions looks for the version that is stamped into Kubernetes' programs (KubernetesVersion, KubeletVersion).
func (p *replay) versions() error {
	for _, name := range []string{"usr/bin/kubeadm", "usr/bin/kubectl", "usr/bin/kubelet"} {
		if err := p.version(name); err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) version(name string) error {
	f, err := p.fsys.Open(name)
	if err != nil {
		return nil //nolint:nilerr // told by programs
	}
	defer f.Close() //nolint:errcheck // read only
	want := "v" + p.node.KubernetesVersion
	found, err := contains(f, []byte(want))
	if err == nil && !found {
		p.say("versions", name, "is not of version %s, which the image says it is", want)
	}
	return err
}

// contains says whether word is in what r has, without keeping it.
func contains(r io.Reader, word []byte) (bool, error) {
	buf, kept := make([]byte, 1<<20), 0
	for {
		n, err := r.Read(buf[kept:])
		if n += kept; bytes.Contains(buf[:n], word) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(buf, buf[max(0, n-len(word)+1):n]) // a word may lie across two reads
	}
}

// kernelOptions are what system-validators 1.12 require of a kernel with cgroup v2.
var kernelOptions = []string{"NAMESPACES", "NET_NS", "PID_NS", "IPC_NS", "UTS_NS", "CGROUPS", "CGROUP_BPF", "CGROUP_PIDS", "CGROUP_SCHED", "CPUSETS", "MEMCG",
	"INET", "EXT4_FS", "PROC_FS", "NETFILTER_XT_TARGET_REDIRECT", "NETFILTER_XT_MATCH_COMMENT", "FAIR_GROUP_SCHED", "OVERLAY_FS"}

// kernel is SystemVerification: the configuration is where kubeadm looks, and has what it requires.
func (p *replay) kernel() error {
	file := path.Join("usr/lib/modules", p.Kernel, "config")
	text, err := fs.ReadFile(p.fsys, file)
	if err != nil {
		p.say("kernel", file, "cannot be read, and kubeadm reads it: %v", err)
		return nil
	}
	have := keyValues(string(text))
	for _, o := range kernelOptions {
		if v := have["CONFIG_"+o]; v != "y" && v != "m" {
			p.say("kernel", file, "CONFIG_%s is not set, and kubeadm requires it", o)
		}
	}
	return nil
}

// modules that are loaded at boot are there, in the kernel or as a file.
func (p *replay) modules() error {
	have := map[string]bool{}
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		file := path.Join("usr/lib/modules", p.Kernel, list)
		text, err := fs.ReadFile(p.fsys, file)
		if err != nil {
			p.say("modules", file, "cannot be read: %v", err)
			return nil
		}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(path.Base(strings.TrimSpace(strings.SplitN(line, ":", 2)[0])), ".ko")
			have[strings.ReplaceAll(name, "-", "_")] = true
			if list == "modules.dep" {
				p.depends(line)
			}
		}
	}
	const file = "usr/lib/modules-load.d/imgbuild.conf"
	text, err := fs.ReadFile(p.fsys, file)
	if err != nil {
		p.say("modules", file, "cannot be read: %v", err)
	}
	for name := range strings.FieldsSeq(string(text)) {
		if !have[strings.ReplaceAll(name, "-", "_")] {
			p.say("modules", file, "the kernel %s has no module %s", p.Kernel, name)
		}
	}
	return nil
}

// depends wants the files of a line of modules.dep to be there: the module and what it depends on.
func (p *replay) depends(line string) {
	for file := range strings.FieldsSeq(strings.Replace(line, ":", " ", 1)) {
		if _, err := fs.Stat(p.fsys, path.Join("usr/lib/modules", p.Kernel, file)); err != nil {
			p.say("modules", path.Join("usr/lib/modules", p.Kernel, "modules.dep"), "%s is not there, and modprobe is told so", file)
		}
	}
}

// settings are kubeadm's FileContent checks and the kubelet's protectKernelDefaults.
func (p *replay) settings() error {
	have, err := p.sysctls()
	for key, want := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.default.forwarding": "1", "net.bridge.bridge-nf-call-iptables": "1",
		"vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
		"kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000"} {
		if have[key] != want {
			p.say("settings", key, "is %q at boot, want %q", have[key], want)
		}
	}
	return err
}

// Sysctls are the settings that a root makes at boot: name with dots → value.
func Sysctls(root fs.FS) (map[string]string, error) { return (&replay{fsys: root}).sysctls() }

// sysctls are the settings of sysctl.d(5): /etc hides a file of the same name in
// /usr/lib, and the last file in the order of names wins.
func (p *replay) sysctls() (map[string]string, error) {
	files := map[string]string{}
	for _, dir := range []string{"usr/lib/sysctl.d", "etc/sysctl.d"} {
		entries, err := fs.ReadDir(p.fsys, dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading %s: %w", dir, err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".conf") {
				files[e.Name()] = path.Join(dir, e.Name())
			}
		}
	}
	out := map[string]string{}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		file, _, err := p.find(files[name])
		if err != nil {
			continue // a dangling link says nothing
		}
		text, err := fs.ReadFile(p.fsys, file)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				out[sysctlName(strings.TrimSpace(strings.TrimPrefix(key, "-")))] = strings.TrimSpace(value)
			}
		}
	}
	return out, nil
}

// sysctlName is a setting's name with dots: where a slash comes first, slashes separate.
func sysctlName(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return strings.NewReplacer("/", ".", ".", "/").Replace(key)
	}
	return key
}

var (
	systemdCgroup = regexp.MustCompile(`(?m)^\s*SystemdCgroup\s*=\s*true\s*$`)
	criDisabled   = regexp.MustCompile(`(?m)^\s*disabled_plugins\s*=\s*\[[^\]]*cri`)
	sandboxImage  = regexp.MustCompile(`(?m)^\s*(?:sandbox|sandbox_image)\s*=\s*["']([^"']+)["']`)
)

// runtime is the CRI check: containerd serves it, with the kubelet's cgroup driver
// and a sandbox image that is on board.
func (p *replay) runtime() error {
	const file = "etc/containerd/config.toml"
	text, err := fs.ReadFile(p.fsys, file)
	switch {
	case err != nil:
		p.say("runtime", file, "cannot be read: %v", err)
		return nil
	case criDisabled.Match(text):
		p.say("runtime", file, "the CRI is switched off")
	case !systemdCgroup.Match(text):
		p.say("runtime", file, "SystemdCgroup is not true: containerd and the kubelet would fight over cgroups")
	}
	sandbox := sandboxImage.FindSubmatch(text)
	if sandbox == nil || !slices.Contains(p.node.Images, string(sandbox[1])) {
		p.say("runtime", file, "the sandbox image is not one that is on board")
	}
	agent, err := fs.ReadFile(p.fsys, "usr/lib/imgbuild/imgbuild-firstboot")
	if err != nil || !bytes.Contains(agent, []byte("cgroupDriver: systemd")) {
		p.say("runtime", "usr/lib/imgbuild/imgbuild-firstboot", "does not give the kubelet systemd's cgroups (%v)", err)
	}
	return nil
}

// swap is the Swap check: nothing makes any.
func (p *replay) swap() error {
	text, _ := fs.ReadFile(p.fsys, "etc/fstab") // none is as good as an empty one
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && !strings.HasPrefix(f[0], "#") && f[2] == "swap" {
			p.say("swap", "etc/fstab", "%s is swap", f[0])
		}
	}
	if target, err := fs.ReadLink(p.fsys, "etc/systemd/system/swap.target"); err != nil || target != "/dev/null" {
		p.say("swap", "etc/systemd/system/swap.target", "is not masked")
	}
	if !slices.Contains(strings.Fields(p.Cmdline), "systemd.swap=0") {
		p.say("swap", p.UKI, "the command line lacks systemd.swap=0: a swap partition would be used")
	}
	return nil
}

// units is Service-Kubelet, and what the node cannot do without.
func (p *replay) units() error {
	enabled := map[string]bool{}
	dirs, err := fs.Glob(p.fsys, "etc/systemd/system/*.wants/*")
	if err != nil {
		return err
	}
	for _, link := range dirs {
		enabled[path.Base(link)] = true
	}
	joins := "imgbuild-firstboot.service"
	if _, err := fs.Stat(p.fsys, "usr/lib/systemd/system/imgbuild-identity.service"); err == nil { // Cluster API's bootstrap data does
		joins = "cloud-final.service"
	}
	for _, unit := range []string{"kubelet.service", "containerd.service", joins, "var.mount"} {
		if !enabled[unit] {
			p.say("units", unit, "is not started at boot")
		}
	}
	return nil
}

// fresh are the FileAvailable and DirAvailable checks.
func (p *replay) fresh() error {
	entries, err := fs.ReadDir(p.fsys, "etc/kubernetes")
	if err != nil {
		p.say("fresh", "etc/kubernetes", "cannot be read: %v", err)
	}
	if len(entries) > 0 {
		p.say("fresh", path.Join("etc/kubernetes", entries[0].Name()), "lies where kubeadm wants nothing to be")
	}
	return nil
}
