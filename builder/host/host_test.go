package host

import (
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/profiles"
)

var update = flag.Bool("update", false, "write the golden configs anew")

// decide is a role's plan by the profile alone.
func decide(t *testing.T, role string, sets ...string) *plan.Plan {
	t.Helper()
	n, found := spec.Load(spec.Input{Role: role, Profiles: profiles.Files, Sets: sets})
	if n == nil {
		t.Fatalf("findings:\n%v", found)
	}
	p, err := plan.Make(n, []lock.Pin{{Kind: lock.KindImage, Name: "registry.k8s.io/pause:3.10.2", Version: "3.10.2"}}, map[string]string{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func on(t *testing.T, name string, p *plan.Plan) *Node {
	t.Helper()
	os, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Of(p, os)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var sample = Payload{Name: "kubernetes-1.37.2-amd64", URL: "https://files.example/nodes/kubernetes-1.37.2-amd64.raw", SHA256: strings.Repeat("ab", 32)}

// odd are files whose texts YAML finds hard to say.
func odd() (out []component.File) {
	for i, text := range []string{"", "\n", "\t", "\tbegins with a tab\nand goes on\n", "  begins with blanks\n", "\n\nbegins with nothing\n", "ends with much\n\n\n", "ends without", "blanks at the end  \nof a line\n",
		"yes", "0644", "~", "- a: {b\n", "# a comment\n", "a: b\n\t- c\n", "é 漢 🐧\n", "\"quoted\" 'twice' \\n %n $x\n"} {
		out = append(out, component.File{Path: fmt.Sprintf("/etc/odd/%d", i), Mode: 0o644, Text: text})
	}
	return append(out, component.File{Path: "/etc/systemd/system/odd.service", Mode: 0o644}, component.File{Path: "/etc/systemd/system/odd.service.d/a.conf", Mode: 0o644, Text: "\t[Unit]\n"})
}

// TestParity holds every part of the node tree against what becomes of it: the config
// has it, the payload has it, or it is on the list of what is left, once, with a reason.
func TestParity(t *testing.T) {
	for _, role := range []string{"master", "worker"} {
		for _, name := range Names() {
			p := decide(t, role)
			n := on(t, name, p)
			if got := len(n.Files) + len(n.Payload) + len(n.Images) + len(n.leftOf("/")); got != len(p.Files) {
				t.Errorf("%s on %s: %d files written, %d in the payload and %d left, of %d", role, name, len(n.Files), len(n.Payload), len(n.leftOf("/")), len(p.Files))
			}
			if got := len(n.Enable) + len(n.leftOf("unit ")); got != len(p.Units.Enable) {
				t.Errorf("%s on %s: %d units of %d", role, name, got, len(p.Units.Enable))
			}
			if got := len(n.Mask) + len(n.leftOf("mask ")); got != len(p.Units.Mask) {
				t.Errorf("%s on %s: %d masks of %d", role, name, got, len(p.Units.Mask))
			}
			if got := len(n.Cmdline) + len(n.leftOf("cmdline ")); got != len(p.Cmdline) {
				t.Errorf("%s on %s: %d words of %d", role, name, got, len(p.Cmdline))
			}
			for _, l := range n.Left {
				if l.Why == "" {
					t.Errorf("%s on %s: %s is left without a reason", role, name, l.What)
				}
			}
			for _, f := range n.Files {
				if !strings.HasPrefix(f.Path, "/etc/") {
					t.Errorf("%s on %s: %s is not in /etc", role, name, f.Path)
				}
			}
		}
	}
}

func (n *Node) leftOf(kind string) (out []string) {
	for _, l := range n.Left {
		if strings.HasPrefix(l.What, kind) {
			out = append(out, l.What)
		}
	}
	return out
}

// TestOnePayload wants the same payload for both roles.
func TestOnePayload(t *testing.T) {
	master, worker := on(t, "debian", decide(t, "master", "cni.name=flannel")), on(t, "debian", decide(t, "worker"))
	if diff := cmp.Diff(master.Payload, worker.Payload); diff != "" {
		t.Error(diff)
	}
}

// TestGolden keeps a Butane config where a review sees it.
func TestGolden(t *testing.T) {
	text, err := on(t, "flatcar", decide(t, "worker")).Butane("", sample)
	if err != nil {
		t.Fatal(err)
	}
	const file = "testdata/worker-flatcar.bu"
	if *update {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(string(text), "base64") {
		t.Error("text is not inline")
	}
}

func TestReleases(t *testing.T) {
	flatcar, _ := Find("flatcar")
	for release, want := range map[string]string{"": "1.0.0", "3185.0.0": "1.0.0", "4230.2.0": "1.0.0"} {
		if got, err := flatcar.formats(release); err != nil || got.butane != want {
			t.Errorf("%s: %v, %v", release, got, err)
		}
	}
	if _, err := flatcar.formats("3033.2.0"); err == nil || !strings.Contains(err.Error(), "use 3185.0.0 or later") {
		t.Error(err)
	}
}

// engine is where Debian's package has the program that runs in an initrd.
const engine = "/usr/lib/dracut/modules.d/30ignition/ignition"

// TestIgnition has the real Ignition apply the config to an empty root, and holds what
// it makes against the node.
func TestIgnition(t *testing.T) {
	if _, err := os.Stat(engine); err != nil {
		t.Skip("the host has no package ignition")
	}
	payload := []byte("the payload")
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/kubernetes.raw" {
			_, _ = w.Write(payload)
		}
	}))
	t.Cleanup(files.Close)
	from := Payload{Name: sample.Name, URL: files.URL + "/kubernetes.raw", SHA256: fmt.Sprintf("%x", sha256.Sum256(payload))}
	for _, role := range []string{"master", "worker"} {
		t.Run(role, func(t *testing.T) {
			n := on(t, "debian", decide(t, role))
			n.Files = append(n.Files, odd()...)
			if role == "worker" {
				_, worker := identities(t)
				var err error
				n.Join, err = JoinWith(worker, role)
				must(t, err)
			}
			text, err := n.Ignition("", from)
			if err != nil {
				t.Fatal(err)
			}
			root := apply(t, text)
			for _, f := range n.Files {
				holds(t, root, f.Path, f.Text, f.Mode, f.Link)
			}
			holds(t, root, from.file(), string(payload), 0o644, "")
			if text := n.Join.Inline.Reveal(); text != "" {
				holds(t, root, config.Credstore, text, 0o600, "")
			}
			for _, name := range n.Mask {
				holds(t, root, "/etc/systemd/system/"+name, "", 0, "/dev/null")
			}
			preset, err := os.ReadFile(filepath.Join(root, "etc/systemd/system-preset/20-ignition.preset"))
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range append(n.units(), n.Enable...) {
				if want := "enable " + u.Name; !n.brings(u.Name) && !slices.Contains(strings.Split(string(preset), "\n"), want) {
					t.Errorf("no line %q in\n%s", want, preset)
				}
			}
		})
	}
	bad := from
	bad.SHA256 = strings.Repeat("00", 32)
	text, err := on(t, "debian", decide(t, "worker")).Ignition("", bad)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := ignite(t, text, t.TempDir()); err == nil || !strings.Contains(out, "hash verification failed") {
		t.Errorf("a payload with another digest: %v\n%s", err, out)
	}
}

// TestJoin wants a host to come by its node config as asked for, and what signs for
// the cluster, or another role's, to be refused.
func TestJoin(t *testing.T) {
	master, worker := identities(t)
	if _, err := JoinWith(master, "master"); err == nil || !strings.Contains(err.Error(), "keys that sign for the cluster") || strings.Contains(err.Error(), "PRIVATE") {
		t.Error(err)
	}
	if _, err := JoinWith(worker, "master"); err == nil || !strings.Contains(err.Error(), "it is a worker's, and this is a master") {
		t.Error(err)
	}
	for _, address := range []string{"files.example", "ftp://files.example/a", "https://user:pass@files.example/a"} {
		if _, err := JoinFrom(address); err == nil || strings.Contains(err.Error(), "pass@") {
			t.Errorf("%s: %v", address, err)
		}
	}
	n := on(t, "debian", decide(t, "worker"))
	var err error
	n.Join, err = JoinWith(worker, "worker")
	must(t, err)
	if said := fmt.Sprintf("%v %+v %#v", n.Join, n.Join, n.Join); strings.Contains(said, "token") {
		t.Errorf("it prints as %s", said)
	}
	text, err := n.CloudInit(sample)
	must(t, err)
	holdsJoin(t, "cloud-config", string(text), "/etc/credstore/imgbuild.node", "permissions: '0600'", "token: ")
	n.Join, err = JoinFrom("https://files.example/once?key=1")
	must(t, err)
	text, err = n.CloudInit(sample)
	must(t, err)
	holdsJoin(t, "cloud-config", string(text), "[install, -d, -m, \"0700\", /etc/credstore]", "download-file, 'https://files.example/once?key=1', /etc/credstore/imgbuild.node]")
	text, err = n.Ignition("", sample)
	must(t, err)
	holdsJoin(t, "ignition", string(text), `"path":"/etc/credstore/imgbuild.node","contents":{"source":"https://files.example/once?key=1"},"mode":384`)
}

// identities are the node configs of a new cluster.
func identities(t *testing.T) (master, worker []byte) {
	t.Helper()
	c, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "demo")
	must(t, c.Save(dir))
	master, err = os.ReadFile(filepath.Join(dir, identity.MasterFile))
	must(t, err)
	worker, err = os.ReadFile(filepath.Join(dir, identity.WorkerFile))
	must(t, err)
	return master, worker
}

func holdsJoin(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("the %s has no %s:\n%s", what, part, text)
		}
	}
}

func apply(t *testing.T, text []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	if out, err := ignite(t, text, root); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return root
}

// ignite runs the stages that matter. Debian's build ends by relabelling for SELinux,
// asked or not: there is none, so what it calls for that does nothing.
func ignite(t *testing.T, text []byte, root string) (said string, err error) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.ign")
	must(t, os.WriteFile(file, text, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "setfiles"), []byte("#!/bin/sh\n"), 0o700))
	must(t, os.MkdirAll(filepath.Join(root, "etc/selinux"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/selinux/config"), []byte("SELINUXTYPE=none\n"), 0o644))
	var all strings.Builder
	for _, stage := range []string{"fetch", "files"} {
		err := run.Run(t.Context(), run.Cmd{Name: engine, Args: []string{"--platform=file", "--stage=" + stage, "--root=" + root, "--log-to-stdout",
			"--config-cache=" + file + ".cache", "--neednet=" + file + ".net"}, Env: []string{"IGNITION_CONFIG_FILE=" + file, "PATH=" + dir + ":/usr/bin:/bin"}, Stdout: &all, Stderr: &all})
		if err != nil {
			return all.String(), err
		}
	}
	return all.String(), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, root, path, text string, mode uint32, link string) {
	t.Helper()
	file := filepath.Join(root, path)
	if link != "" {
		if got, err := os.Readlink(file); err != nil || got != link {
			t.Errorf("%s leads to %q, %v; want %q", path, got, err, link)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil || string(got) != text {
		t.Errorf("%s: %v, %q; want %q", path, err, got, text)
		return
	}
	if info, err := os.Stat(file); err != nil || fmt.Sprintf("%#o", info.Mode().Perm()) != fmt.Sprintf("%#o", mode) {
		t.Errorf("%s has mode %v, want %#o", path, info.Mode(), mode)
	}
}

// TestValid asks what the config says of itself, by Ignition's schema.
func TestValid(t *testing.T) {
	for _, name := range Names() {
		text, err := on(t, name, decide(t, "master", "host.os="+name)).Ignition("", sample) // the spec knows it, too
		if err != nil {
			t.Fatal(err)
		}
		var c struct{ Ignition struct{ Version string } }
		if err := json.Unmarshal(text, &c); err != nil || c.Ignition.Version != "3.3.0" {
			t.Errorf("%s: version %q, %v", name, c.Ignition.Version, err)
		}
	}
}

// TestCloudInitSays reads every file back out of the user data.
func TestCloudInitSays(t *testing.T) {
	n := on(t, "debian", decide(t, "worker"))
	n.Files = append(n.Files, odd()...)
	text, err := n.CloudInit(sample)
	must(t, err)
	var c struct {
		Files []struct{ Path, Content string } `yaml:"write_files"`
	}
	must(t, yaml.Unmarshal(text, &c))
	got := map[string]string{}
	for _, f := range c.Files {
		got[f.Path] = f.Content
	}
	for _, f := range n.Files {
		if have, ok := got[f.Path]; f.Link == "" && (!ok || have != f.Text) {
			t.Errorf("%s: %q, want %q", f.Path, have, f.Text)
		}
	}
}

// TestCloudInit wants the schema of cloud-init itself to accept the user data.
func TestCloudInit(t *testing.T) {
	for _, role := range []string{"master", "worker"} {
		text, err := on(t, "debian", decide(t, role)).CloudInit(sample)
		must(t, err)
		file := filepath.Join(t.TempDir(), "user-data")
		must(t, os.WriteFile(file, text, 0o644))
		t.Logf("%s: %d bytes\n%s", role, len(text), text)
		if _, err := run.Look("cloud-init"); err != nil {
			t.Skip("the host has no cloud-init")
		}
		if out, err := run.Output(t.Context(), run.Cmd{Name: "cloud-init", Args: []string{"schema", "--config-file", file}}); err != nil || !strings.Contains(string(out), "Valid") {
			t.Errorf("%s: %v\n%s", role, err, out)
		}
	}
}

// TestPage keeps docs/hosts.md: what of a node goes where.
func TestPage(t *testing.T) {
	const file = "../../docs/hosts.md"
	text := page(on(t, "debian", decide(t, "master")))
	if *update {
		must(t, os.WriteFile(file, []byte(text), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("docs/hosts.md is old; run go test ./builder/host -update:\n%s", diff)
	}
}

func page(n *Node) string {
	var b strings.Builder
	b.WriteString("<!-- Generated from builder/host by \"go test ./builder/host -update\". Do not edit. -->\n# What of a node goes where on a host\n\n" +
		"A master, on Debian; Flatcar and Fedora CoreOS differ by the words of the kernel command line, which Ignition adds there. A worker\n" +
		"has less of the same. What the disk image has and no table here has does not exist: a test counts.\n\n## Written by the config\n\n| path | mode |\n|---|---|\n")
	for _, f := range n.Files {
		fmt.Fprintf(&b, "| `%s` | %04o |\n", f.Path, f.Mode)
	}
	b.WriteString("\n## In the payload\n\n| path |\n|---|\n")
	for _, f := range n.Payload {
		fmt.Fprintf(&b, "| `%s` |\n", f.Path)
	}
	b.WriteString("| runc and the CNI plugins of the base |\n\n## Units\n\n| unit | |\n|---|---|\n")
	for _, u := range n.Enable {
		how := "enabled"
		if n.brings(u.Name) {
			how = "started by `" + payloadUnit + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", u.Name, how)
	}
	for _, name := range n.Mask {
		fmt.Fprintf(&b, "| `%s` | masked |\n", name)
	}
	b.WriteString("\n## Left to the host\n\n| what | why |\n|---|---|\n")
	for _, l := range n.Left {
		fmt.Fprintf(&b, "| `%s` | %s |\n", l.What, l.Why)
	}
	return b.String()
}
