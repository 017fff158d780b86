package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/profiles"
)

// must loads what has to be without any finding.
func must(t *testing.T, role, document string, sets ...string) *spec.Node {
	t.Helper()
	n, found := load(role, document, sets...)
	if len(found) > 0 {
		t.Fatalf("findings:\n%v", found)
	}
	return n
}

func TestProfilesSayItAll(t *testing.T) {
	for _, role := range spec.Roles() {
		n := must(t, role, "")
		got := []string{n.Role, n.Arch, n.Base.Name, n.Kubernetes.Version, n.Kubernetes.KubeletVersion, n.Containerd.Version, n.CNI.Name, n.CNI.Version, n.Output.Name}
		want := []string{role, "amd64", "debian-trixie", "1.37.2", "1.37.2", "2.3.2", "flannel", "0.26.7", role}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", role, diff)
		}
		if !n.Firewall.Enabled || n.SSH.Enabled {
			t.Errorf("%s: firewall %v, ssh %v", role, n.Firewall.Enabled, n.SSH.Enabled)
		}
	}
}

func TestMergeOrder(t *testing.T) {
	first := head + "kubernetes: {version: \"1.35\"}\nfirewall: {allow: [tcp/1, tcp/2]}\nboot: {sysctls: {vm.swappiness: 1, kernel.panic: 10}}\n"
	second := head + "firewall: {allow: [udp/3]}\nboot: {sysctls: {vm.swappiness: 2}}\n"
	n, found := spec.Load(spec.Input{Role: "worker", Profiles: profiles.Files,
		Files: []spec.Document{{Name: "a.yaml", Data: []byte(first)}, {Name: "b.yaml", Data: []byte(second)}},
		Sets:  []string{"kubernetes.version=1.36", "boot.sysctls.vm.swappiness=3", `boot.console=tty1,ttyS1\,9600`, "ssh.enabled=true"}})
	if len(found) > 0 {
		t.Fatalf("findings:\n%v", found)
	}
	got := map[string]any{"version": n.Kubernetes.Version, "allow": n.Firewall.Allow, "sysctls": n.Boot.Sysctls, "console": n.Boot.Console, "ssh": n.SSH.Enabled}
	want := map[string]any{"version": "1.36.3", "allow": []string{"udp/3"}, "sysctls": map[string]string{"vm.swappiness": "3", "kernel.panic": "10"},
		"console": []string{"tty1", "ttyS1,9600"}, "ssh": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRole(t *testing.T) {
	if n := must(t, "", head+"role: worker\n"); n.Disk.VarSize != "4Gi" {
		t.Errorf("the worker's profile was not taken: %+v", n.Disk)
	}
	if n := must(t, "", "", "role=master"); n.Disk.VarSize != "8Gi" {
		t.Errorf("the master's profile was not taken: %+v", n.Disk)
	}
	for document, want := range map[string]string{
		head:                 "role: missing; say what the node is: imgbuild master or imgbuild worker, or role: in a file",
		head + "role: wrker": `node.yaml:3:7: role: "wrker" is not known; did you mean "worker"? known: master or worker`,
	} {
		if _, found := load("", document); found.Error() != want {
			t.Errorf("got %s\nwant %s", found, want)
		}
	}
}

func TestOtherBases(t *testing.T) {
	n := must(t, "worker", head+"base: {oci: ./layout}\ncni: {name: none}\n")
	if n.Base.Name+n.Base.Kernel+n.CNI.Version+n.CNI.Backend != "" {
		t.Errorf("the profile's values are still there: %+v %+v", n.Base, n.CNI)
	}
}

func TestWarnings(t *testing.T) {
	n, found := load("worker", head+"containerd:\n  source: base\n")
	if n == nil || n.Containerd.Version != "1.7" {
		t.Fatalf("node %+v, findings %v", n, found)
	}
	want := "node.yaml:4:11: containerd.source: warning: containerd 1.7 works with kubelet 1.37.2, but no longer from 1.38 on; use 2.3.2"
	if got := found.Error(); got != want || found.Err() != nil || len(found.Warnings()) != 1 {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestValidateNodeFromCode(t *testing.T) {
	n := must(t, "worker", "")
	n.Kubernetes.Version, n.Kubernetes.KubeletVersion, n.Containerd.Version = "1.38.0", "1.38.0", "1.7.28"
	before := string(n.Canonical())
	found := spec.Validate(n)
	if diff := cmp.Diff([]string{
		"default: containerd.version: containerd 1.7.28 does not work with kubelet 1.38.0; use 2.3.2",
		"default: kubernetes.version: Kubernetes 1.38.0 is not supported; use 1.37.2, 1.36.3 or 1.35.4",
	}, strings.Split(found.Error(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if after := string(n.Canonical()); after != before {
		t.Errorf("Validate changed the node:\n%s", cmp.Diff(before, after))
	}
	if found := spec.Validate(&spec.Node{}); len(found) < 8 {
		t.Errorf("an empty node has %d findings", len(found))
	}
}

func TestDocumentLimits(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	for _, c := range []struct{ name, document, want string }{
		{"empty", "", `node.yaml:1:1: the document is empty; it begins with "apiVersion: imgbuild.dev/v1alpha1" and "kind: Node"`},
		{"comments only", "# nothing\n", `node.yaml:1:1: the document is empty; it begins with "apiVersion: imgbuild.dev/v1alpha1" and "kind: Node"`},
		{"no header", "ssh: {enabled: true}\n", `node.yaml:1:1: apiVersion: missing; add "apiVersion: imgbuild.dev/v1alpha1"` + "\n" + `node.yaml:1:1: kind: missing; add "kind: Node"`},
		{"other kind", "apiVersion: imgbuild.dev/v1\nkind: Pod\n", `node.yaml:1:13: apiVersion: "imgbuild.dev/v1" is not known; use imgbuild.dev/v1alpha1` + "\n" + `node.yaml:2:7: kind: "Pod" is not known; use Node`},
		{"list", "- a\n", "node.yaml:1:1: got a list, want keys and values"},
		{"text", "hello\n", `node.yaml:1:1: got the text "hello", want keys and values`},
		{"bomb", bomb, `node.yaml:1:4: anchor "&a" is not accepted; write the value out where it is needed`},
		{"deep", "a: " + strings.Repeat("[", 20) + strings.Repeat("]", 20), "node.yaml:1:19: values are nested more than 16 levels deep; a node needs 4 levels"},
		{"10,000 deep", "a: " + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), "node.yaml:1:19: values are nested more than 16 levels deep; a node needs 4 levels"},
		{"a million deep", "a: " + strings.Repeat("[", 1_000_000), "node.yaml:1: exceeded max depth of 10000; a node needs 4 levels"},
		{"long list", head + "firewall:\n  allow:\n" + strings.Repeat("  - tcp/1\n", 1001), "node.yaml:5:3: a list or mapping has more than 1000 entries; a node's description is short"},
		{"large", strings.Repeat("#", 1<<20+1), "node.yaml: the file has more than the 1048576 bytes that are allowed; a node's description is short; large files belong in a package or base image"},
		{"UTF-16", "\xff\xfea\x00", "node.yaml:1:1: byte 0xff is not text; save the file as UTF-8 without control characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, found := spec.Load(spec.Input{Role: "worker", Profiles: profiles.Files, Files: []spec.Document{{Name: "node.yaml", Data: []byte(c.document)}}})
			if got := found.Error(); got != c.want {
				t.Errorf("got  %.300s\nwant %s", got, c.want)
			}
		})
	}
}

func TestManyFindings(t *testing.T) {
	document := head + "files:\n"
	for i := range 999 {
		document += fmt.Sprintf("  - {path: /etc/f%d, a: 1, b: 2}\n", i)
	}
	_, found := load("worker", document)
	last := found[len(found)-1].String()
	if want := "node.yaml:54:22: there is more; only the first 100 findings are shown"; len(found) != 101 || !strings.HasSuffix(last, want) {
		t.Errorf("%d findings, the last one %s", len(found), last)
	}
}

func TestByteOrderMarkAndLineEnds(t *testing.T) {
	unix := head + "files:\n  - path: /etc/motd\n    content: |\n      a\n      b\n"
	want := must(t, "worker", unix).Hash()
	if got := must(t, "worker", "\ufeff"+strings.ReplaceAll(unix, "\n", "\r\n")).Hash(); got != want {
		t.Errorf("a byte order mark and CRLF make another node: %s, %s", got, want)
	}
	_, found := load("worker", "\ufeff"+strings.ReplaceAll(head+"arch: armhf\n", "\n", "\r\n"))
	if want := `node.yaml:3:7: arch: "armhf" is not known; use amd64 or arm64`; found.Error() != want {
		t.Errorf("got %s, want %s", found, want)
	}
}

func TestHash(t *testing.T) {
	a := must(t, "worker", head+"ssh: {enabled: true}\nboot: {sysctls: {b.a: 1, a.b: 2}}\nbase: {packages: []}\n")
	b := must(t, "worker", "# other\n"+head+"boot:\n  sysctls: {\"a.b\": \"2\", b.a: \"1\"}\n", "ssh.enabled=true")
	if a.Hash() != b.Hash() || len(a.Hash()) != 64 {
		t.Errorf("the same node has two hashes:\n%s", cmp.Diff(string(a.Canonical()), string(b.Canonical())))
	}
	if c := must(t, "worker", "", "ssh.enabled=true"); a.Hash() == c.Hash() {
		t.Error("two nodes have one hash")
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(head+"firewall: {allow: [tcp/1]}", "ssh.enabled=true")
	f.Add("\ufeffa: [1, {b: c}]\n---\n", "boot.sysctls.a.b=1")
	f.Add("? [a]\n: |\n  x\n!!str b: *c", "=")
	f.Fuzz(func(t *testing.T, document, assignment string) {
		n, found := load("worker", document, assignment)
		if (n == nil) != (found.Err() != nil) {
			t.Errorf("node %v with findings %v", n, found)
		}
		for _, finding := range found {
			if line := finding.String(); strings.ContainsFunc(line, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
				t.Errorf("a finding with a control character: %q", line)
			}
		}
	})
}
