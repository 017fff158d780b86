package component_test

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/overlays"
	"github.com/imgbuild/imgbuild/profiles"
)

const pause = "registry.k8s.io/pause:3.10.2"

// calico and cilium come by a manifest of the user's.
var (
	calico = []string{"cni.name=calico", "cni.backend=ipip", "cni.encryption=wireguard", "cni.manifest.file=c.yaml", "cni.manifest.sha256=" + strings.Repeat("0", 64)}
	cilium = []string{"cni.name=cilium", "cni.manifest.file=c.yaml", "cni.manifest.sha256=" + strings.Repeat("0", 64)}
)

// variants are nodes that between them take every branch of every overlay.
var variants = []struct {
	name, role string
	sets       []string
}{
	{"master", "master", nil},
	{"worker", "worker", nil},
	{"worker without a pod network", "worker", []string{"cni.name=none"}},
	{"master on host-gw", "master", []string{"cni.backend=host-gw"}},
	{"calico", "master", calico},
	{"cilium", "worker", cilium},
	{"containerd of the base", "worker", []string{"containerd.source=base"}},
	{"ssh on", "master", []string{"ssh.enabled=true"}},
	{"kubernetes 1.35.4", "master", []string{"kubernetes.version=1.35.4"}},
	{"firewall off", "worker", []string{"firewall.enabled=false"}},
	{"time servers", "worker", []string{"time.servers=ntp.example.org"}},
	{"by Cluster API", "master", []string{"bootstrap=cluster-api"}},
}

// load is a node of the profiles with some values set.
func load(t *testing.T, role string, sets ...string) *spec.Node {
	t.Helper()
	n, found := spec.Load(spec.Input{Role: role, Profiles: profiles.Files, Sets: sets})
	if n == nil {
		t.Fatalf("findings:\n%v", found)
	}
	return n
}

// decide is the plan of a node whose lock holds images alone.
func decide(t *testing.T, role string, sets ...string) *plan.Plan {
	t.Helper()
	pins := []lock.Pin{{Kind: lock.KindImage, Name: pause}, {Kind: lock.KindImage, Name: "registry.k8s.io/kube-proxy:v1.37.2"}}
	p, err := plan.Make(load(t, role, sets...), pins, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// file is the entry of the node tree at a path; absent it is the zero File.
func file(p *plan.Plan, name string) component.File {
	if i := slices.IndexFunc(p.Files, func(f component.File) bool { return f.Path == name }); i >= 0 {
		return p.Files[i]
	}
	return component.File{}
}

// TestPatches has the agent give kubeadm what the image's owner put there.
func TestPatches(t *testing.T) {
	n := load(t, "master")
	if strings.Contains(facts(t, n), "patches") {
		t.Error("no file, and patches")
	}
	n.Files = []spec.File{{Path: config.PatchesDir + "/etcd+strategic.yaml"}}
	if !strings.Contains(facts(t, n), `"patches": true`) {
		t.Error(facts(t, n))
	}
}

func facts(t *testing.T, n *spec.Node) string {
	t.Helper()
	f, err := component.NodeFacts(n, component.Facts{}, "")
	if err != nil {
		t.Fatal(err)
	}
	return f.Text
}

func TestEveryOverlayRenders(t *testing.T) {
	placed := map[string]bool{}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			n := load(t, v.role, v.sets...)
			for _, c := range component.All() {
				if c.Add == nil {
					continue
				}
				if _, err := c.Add(n, component.Facts{Pause: pause, Images: []string{pause}}); err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
			for _, f := range decide(t, v.role, v.sets...).Files {
				placed[f.Path] = true
				if strings.Contains(f.Text, "{{") || strings.Contains(f.Text, "<no value>") || strings.Contains(f.Text, "%!") {
					t.Errorf("%s is not rendered:\n%s", f.Path, f.Text)
				}
				if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path {
					t.Errorf("%s is not a clean absolute path", f.Path)
				}
			}
		})
	}
	err := fs.WalkDir(overlays.Files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		_, rest, _ := strings.Cut(p, "/")
		if dst := "/" + strings.TrimSuffix(rest, ".tmpl"); !placed[dst] {
			t.Errorf("overlays/%s lands on no node", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatASpecTurnsOnAndOff(t *testing.T) {
	const (
		sshd      = "/etc/ssh/sshd_config.d/10-imgbuild.conf"
		flex      = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"
		manifest  = "/etc/imgbuild/manifests/flannel.yaml"
		rules     = "/etc/imgbuild/firewall.nft"
		ownUnit   = "/usr/lib/systemd/system/containerd.service"
		ownBinary = "/usr/bin/containerd"
	)
	for _, c := range []struct {
		sets    []string
		has     []string
		hasNone []string
	}{
		{nil, []string{manifest, rules, ownUnit, ownBinary}, []string{sshd, flex}},
		{[]string{"cni.name=none"}, []string{rules}, []string{manifest}},
		{[]string{"containerd.source=base"}, []string{"/etc/containerd/config.toml"}, []string{ownUnit, ownBinary}},
		{[]string{"ssh.enabled=true"}, []string{sshd}, nil},
		{[]string{"kubernetes.version=1.35.4"}, []string{flex}, nil},
		{[]string{"firewall.enabled=false"}, nil, []string{rules, "/usr/lib/systemd/system/systemd-networkd.service.d/20-imgbuild-firewall.conf"}},
	} {
		p := decide(t, "worker", c.sets...)
		for _, name := range c.has {
			if file(p, name).Path == "" {
				t.Errorf("%v: %s is missing", c.sets, name)
			}
		}
		for _, name := range c.hasNone {
			if file(p, name).Path != "" {
				t.Errorf("%v: %s is there", c.sets, name)
			}
		}
	}
	if ntp := file(decide(t, "worker", "time.servers=a.example.org,b.example.org"), "/usr/lib/systemd/timesyncd.conf.d/10-imgbuild.conf").Text; !strings.Contains(ntp, "\nNTP=a.example.org b.example.org\n") {
		t.Errorf("time servers: %s", ntp)
	}
}

// TestUnitsAreBroughtBySomeone wants every unit of imgbuild's own that is enabled
// or masked to make sense: none is both.
func TestUnitsAreBroughtBySomeone(t *testing.T) {
	for _, v := range variants {
		p := decide(t, v.role, v.sets...)
		for _, u := range p.Units.Enable {
			if slices.Contains(p.Units.Mask, u.Name) {
				t.Errorf("%s: %s is enabled and masked", v.name, u.Name)
			}
			own := strings.HasPrefix(u.Name, "imgbuild-") || strings.HasSuffix(u.Name, ".mount") || u.Name == "kubelet.service"
			if own && file(p, "/usr/lib/systemd/system/"+u.Name).Text == "" {
				t.Errorf("%s: %s is enabled, but nothing brings it", v.name, u.Name)
			}
		}
	}
}

func TestModes(t *testing.T) {
	private := map[string]bool{
		"/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": true, // CIS Kubernetes 4.1.1
		"/usr/lib/systemd/system/kubelet.service":                   true,
		"/etc/ssh/sshd_config.d/10-imgbuild.conf":                   true,
	}
	p := decide(t, "master", "ssh.enabled=true")
	for name := range private {
		if f := file(p, name); f.Mode != 0o600 {
			t.Errorf("%s has mode %04o, want 0600", name, f.Mode)
		}
	}
	for _, f := range p.Files {
		want := uint32(0o644)
		switch {
		case f.Link != "" || private[f.Path]:
			continue
		case f.Part != "" && f.Part != "images.tar":
			want = 0o755
		}
		if f.Mode != want {
			t.Errorf("%s has mode %04o, want %04o", f.Path, f.Mode, want)
		}
	}
	if f := file(decide(t, "worker", "cni.name=none"), "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"); f.Mode != 0o600 {
		t.Errorf("10-kubeadm.conf of a worker has mode %04o", f.Mode)
	}
}

func TestComponentsMustAgreeOnSysctls(t *testing.T) {
	n := load(t, "worker", "boot.sysctls.vm.swappiness=7")
	one := component.Addition{Sysctls: map[string]string{"kernel.panic": "10", "vm.swappiness": "1"}, Modules: []string{"vxlan", "overlay"}}
	if _, err := component.Render(n, []component.Addition{one, {Sysctls: map[string]string{"kernel.panic": "0"}}}); err == nil || !strings.Contains(err.Error(), "kernel.panic") {
		t.Errorf("two components disagree on kernel.panic: %v", err)
	}
	files, err := component.Render(n, []component.Addition{one, {Sysctls: map[string]string{"kernel.panic": "10"}, Modules: []string{"overlay"}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/usr/lib/sysctl.d/90-imgbuild.conf":    "kernel.panic = 10\nvm.swappiness = 7\n", // the user's value, once
		"/usr/lib/modules-load.d/imgbuild.conf": "overlay\nvxlan\n",
	} {
		if i := slices.IndexFunc(files, func(f component.File) bool { return f.Path == name }); i < 0 || files[i].Text != want {
			t.Errorf("%s is not %q in %+v", name, want, files)
		}
	}
}

func TestUserSysctlsWin(t *testing.T) {
	const name = "/usr/lib/sysctl.d/90-imgbuild.conf"
	text := file(decide(t, "worker", "boot.sysctls.kernel.pid_max=100000"), name).Text
	if strings.Count(text, "kernel.pid_max") != 1 || !strings.Contains(text, "kernel.pid_max = 100000\n") {
		t.Errorf("kernel.pid_max is not the user's:\n%s", text)
	}
	for _, setting := range []string{"net.bridge.bridge-nf-call-iptables = 1", "net.bridge.bridge-nf-call-ip6tables = 1", "net.ipv4.ip_forward = 1",
		"net.ipv6.conf.all.forwarding = 1", "vm.overcommit_memory = 1", "kernel.panic = 10", "net.ipv4.conf.all.rp_filter = 2"} {
		if !strings.Contains(text, setting+"\n") {
			t.Errorf("%q is missing", setting)
		}
	}
	if text := file(decide(t, "worker", "cni.name=none"), name).Text; !strings.Contains(text, "net.ipv4.conf.all.rp_filter = 0\n") {
		t.Error("another pod network may route asymmetrically: rp_filter must be off")
	}
}

func TestTwoFilesAtOnePath(t *testing.T) {
	doc := "apiVersion: imgbuild.dev/v1alpha1\nkind: Node\nfiles:\n- {path: /etc/crictl.yaml, content: \"%s\"}\n"
	make := func(content string) error {
		n, found := spec.Load(spec.Input{Role: "worker", Profiles: profiles.Files, Files: []spec.Document{{Name: "a.yaml", Data: []byte(strings.Replace(doc, "%s", content, 1))}}})
		if n == nil {
			t.Fatal(found)
		}
		_, err := plan.Make(n, nil, nil)
		return err
	}
	if err := make("timeout: 1\\n"); err == nil || !strings.Contains(err.Error(), "/etc/crictl.yaml") {
		t.Errorf("another /etc/crictl.yaml: %v", err)
	}
	same, err := overlays.Files.ReadFile("containerd/etc/crictl.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := make(strings.ReplaceAll(string(same), "\n", "\\n")); err != nil {
		t.Errorf("the same /etc/crictl.yaml twice: %v", err)
	}
}
