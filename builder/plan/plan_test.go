package plan

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/profiles"
)

var update = flag.Bool("update", false, "write the golden plans anew")

// golden is each role's plan of the profile alone, for people to read in a review:
// what a change to a component does to a node shows there.
var golden = map[string]string{"master": "plan.golden.json", "worker": "plan-worker.golden.json"}

func load(t *testing.T, role string, sets ...string) *spec.Node {
	t.Helper()
	n, found := spec.Load(spec.Input{Role: role, Profiles: profiles.Files, Sets: sets})
	if n == nil {
		t.Fatalf("findings:\n%v", found)
	}
	return n
}

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// pins is a lock in little: what a plan takes from each kind of input.
func pins(role string) []lock.Pin {
	deb := func(name, version, c string) lock.Pin {
		return lock.Pin{Request: "debian-trixie", Kind: lock.KindBase, Name: name, Version: version, Arch: "amd64", Source: "debian", URL: "pool/" + name + ".deb", Size: 1000, Digest: digest(c)}
	}
	part := func(name, version, c string) lock.Pin {
		return lock.Pin{Request: name, Kind: lock.KindPart, Name: name, Version: version, Arch: "amd64", Source: "release", URL: "bin/" + name, Size: 2000, Digest: digest(c)}
	}
	image := func(name, tag, c string) lock.Pin {
		return lock.Pin{Request: name, Kind: lock.KindImage, Name: name + ":" + tag, Version: tag, Arch: "amd64", Source: "release", Size: 3000, Digest: digest(c)}
	}
	out := []lock.Pin{deb("nftables", "1.1.3-1", "1"), deb("systemd", "257.8-1", "2"),
		image("ghcr.io/flannel-io/flannel", "v0.26.7", "3"), image("registry.k8s.io/kube-proxy", "v1.37.2", "4"), image("registry.k8s.io/pause", "3.10.2", "5")}
	if role == "master" {
		out = append(out, image("registry.k8s.io/etcd", "3.7.0-0", "6"), image("registry.k8s.io/kube-apiserver", "v1.37.2", "7"))
	}
	return append(out, part("containerd", "2.3.2", "8"), part("kubeadm", "1.37.2", "9"), part("kubelet", "1.37.2", "a"))
}

func tools() map[string]string {
	return map[string]string{"imgbuild-initrd": digest("b"), "imgbuild-firstboot": digest("c")}
}

func decide(t *testing.T, n *spec.Node, in []lock.Pin, own map[string]string) *Plan {
	t.Helper()
	p, err := Make(n, in, own)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGolden(t *testing.T) {
	for role, name := range golden {
		file := filepath.Join("../../images/debian-trixie", name)
		got := decide(t, load(t, role), pins(role), tools()).JSON()
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
			t.Errorf("%s (-want +got); if that is meant, run `go test ./builder/plan -update`:\n%s", name, diff)
		}
	}
}

func TestIDChanges(t *testing.T) {
	first := decide(t, load(t, "master"), pins("master"), tools()).ID
	if len(first) != 64 {
		t.Fatalf("the id is %q", first)
	}
	otherPin := pins("master")
	otherPin[1].Digest = digest("f")
	otherImage := pins("master")
	otherImage[4].Digest = digest("f")
	otherTool := tools()
	otherTool["imgbuild-initrd"] = digest("f")
	seen := map[string]string{first: "the first plan"}
	for what, p := range map[string]*Plan{
		"a sysctl":          decide(t, load(t, "master", "boot.sysctls.vm.swappiness=1"), pins("master"), tools()),
		"a package's pin":   decide(t, load(t, "master"), otherPin, tools()),
		"an image's pin":    decide(t, load(t, "master"), otherImage, tools()),
		"one pin less":      decide(t, load(t, "master"), pins("master")[1:], tools()),
		"a tool":            decide(t, load(t, "master"), pins("master"), otherTool),
		"the role":          decide(t, load(t, "worker"), pins("master"), tools()),
		"a port":            decide(t, load(t, "master", "firewall.allow=tcp/9100"), pins("master"), tools()),
		"a word for kernel": decide(t, load(t, "master", "boot.cmdline=quiet"), pins("master"), tools()),
	} {
		if other, ok := seen[p.ID]; ok {
			t.Errorf("%s changed, and the id is that of %s", what, other)
		}
		seen[p.ID] = what
	}
}

// TestIDStays wants the same id where the same is said in another way.
func TestIDStays(t *testing.T) {
	first := decide(t, load(t, "master"), pins("master"), tools())
	written, found := spec.Load(spec.Input{Role: "master", Profiles: profiles.Files, Files: []spec.Document{{Name: "a.yaml",
		Data: []byte("apiVersion: imgbuild.dev/v1alpha1\nkind: Node\nrole: master\nkubernetes: {version: \"1.37\"}\ncni: {name: flannel}\n")}}})
	if written == nil {
		t.Fatal(found)
	}
	for what, n := range map[string]*spec.Node{
		"loaded again":            load(t, "master"),
		"defaults set":            load(t, "master", "kubernetes.version=1.37.2", "disk.varSize=8Gi", "containerd.version=2.3.2"),
		"defaults in a file":      written,
		"the user's own load":     load(t, "", "role=master"),
		"one of the set to twice": load(t, "master", "cni.backend=host-gw", "cni.backend=vxlan"),
	} {
		p := decide(t, n, pins("master"), tools())
		if diff := cmp.Diff(string(first.JSON()), string(p.JSON())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	for range 10 { // maps are walked in another order each time
		if again := decide(t, load(t, "master"), pins("master"), tools()); again.ID != first.ID {
			t.Fatalf("%s, then %s", first.ID, again.ID)
		}
	}
}

// TestIDIsInTheNode wants node.json to carry the id that the plan has.
func TestIDIsInTheNode(t *testing.T) {
	p := decide(t, load(t, "worker"), pins("worker"), tools())
	i := slices.IndexFunc(p.Files, func(f component.File) bool { return f.Path == "/etc/imgbuild/node.json" })
	if i < 0 || !strings.Contains(p.Files[i].Text, `"planID": "`+p.ID+`"`) {
		t.Errorf("node.json does not name %s", p.ID)
	}
}

func TestAsk(t *testing.T) {
	for name, sets := range map[string][]string{
		"the profile":           nil,
		"no pod network":        {"cni.name=none"},
		"containerd of base":    {"containerd.source=base"},
		"ssh":                   {"ssh.enabled=true"},
		"1.35.4":                {"kubernetes.version=1.35.4"},
		"an older kubelet":      {"kubernetes.kubeletVersion=1.36.3"},
		"packages of the user":  {"base.packages=nftables,zstd,acl"}, // the firewall asks for nftables, too
		"a mirror":              {"base.mirror=http://mirror.example/debian", "base.packages=acl"},
		"a keyring":             {"base.keyring=own.pgp"},
		"parts from a folder":   {"kubernetes.source=dir", "kubernetes.dir=parts"},
		"a kernel for hardware": {"base.kernel=generic"},
	} {
		for _, role := range spec.Roles() {
			asked := Ask(load(t, role, sets...))
			checkBase(t, name, asked[0])
			seen := map[string]bool{}
			for i, r := range asked {
				if i > 0 && r.Kind == lock.KindBase {
					t.Errorf("%s: %s is a second base", name, r.Name)
				}
				if key := string(r.Kind) + " " + r.Name; seen[key] {
					t.Errorf("%s: %s is asked for twice", name, key)
				} else {
					seen[key] = true
				}
				if r.Source == "" || strings.HasPrefix(r.Version, "vv") {
					t.Errorf("%s: %+v", name, r)
				}
			}
		}
	}
}

func checkBase(t *testing.T, name string, base lock.Request) {
	t.Helper()
	packages := base.Args
	for len(packages) > 0 && strings.Contains(packages[0], "=") {
		packages = packages[1:]
	}
	if base.Kind != lock.KindBase || !slices.IsSorted(packages) || len(slices.Compact(slices.Clone(packages))) != len(packages) {
		t.Errorf("%s: the first request is %+v", name, base)
	}
	for _, need := range []string{"systemd", "nftables", "runc", "kmod"} {
		if !slices.Contains(packages, need) {
			t.Errorf("%s: the base lacks %s", name, need)
		}
	}
}

func TestAskOfAnImageAsBase(t *testing.T) {
	n, found := spec.Load(spec.Input{Role: "worker", Profiles: profiles.Files, Files: []spec.Document{{Name: "a.yaml",
		Data: []byte("apiVersion: imgbuild.dev/v1alpha1\nkind: Node\nbase: {oci: ./layout}\n")}}})
	if n == nil {
		t.Fatal(found)
	}
	want := lock.Request{Kind: lock.KindBase, Name: "./layout", Source: "oci"}
	if diff := cmp.Diff(want, Ask(n)[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAskByRole(t *testing.T) {
	images := func(role string) (out []string) {
		for _, r := range Ask(load(t, role)) {
			if r.Kind == lock.KindImage {
				out = append(out, r.Name[strings.LastIndex(r.Name, "/")+1:])
			}
		}
		slices.Sort(out)
		return out
	}
	worker := []string{"coredns", "flannel", "kube-proxy", "pause"}
	master := []string{"coredns", "etcd", "flannel", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "pause"}
	if diff := cmp.Diff(map[string][]string{"worker": worker, "master": master}, map[string][]string{"worker": images("worker"), "master": images("master")}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestMergeNamesTheConflict puts two different things at one path, and the same twice.
func TestMergeNamesTheConflict(t *testing.T) {
	n := load(t, "worker")
	at := func(text string) component.Addition {
		return component.Addition{Files: []component.File{{Path: "/etc/x", Mode: 0o644, Text: text}}}
	}
	if err := (&Plan{}).merge(n, []component.Addition{at("a"), at("b")}); err == nil || !strings.Contains(err.Error(), "/etc/x") {
		t.Errorf("two texts: %v", err)
	}
	p := &Plan{}
	if err := p.merge(n, []component.Addition{at("a"), at("a")}); err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, f := range p.Files {
		if f.Path == "/etc/x" {
			count++
		}
	}
	if count != 1 {
		t.Errorf("/etc/x is there %d times", count)
	}
	link := component.Addition{Files: []component.File{{Path: "/etc/x", Link: "y"}}}
	if err := (&Plan{}).merge(n, []component.Addition{at("a"), link}); err == nil {
		t.Error("a file and a link at one path pass")
	}
}
