package dpkg

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// TestModulesInTwoPackages: Ubuntu's kernels have their modules in packages of their own, and in /lib.
func TestModulesInTwoPackages(t *testing.T) {
	modules := tree.New()
	if err := modules.ApplyTar("../../../internal/kmod/testdata/modules.tar"); err != nil {
		t.Fatal(err)
	}
	parts := map[string]map[string]string{"linux-image-1.0": {"boot/vmlinuz-1.0": "kernel"}, "linux-modules-1.0": {}, "linux-modules-extra-1.0": {}}
	all := 0
	for _, p := range modules.Paths() {
		name := strings.TrimPrefix(p, "1.0/")
		text, err := modules.ReadFile(p)
		to := "linux-modules-1.0"
		switch {
		case err != nil: // a folder
			continue
		case strings.Contains(name, ".ko"):
			if all++; all > 1 {
				to = "linux-modules-extra-1.0"
			}
		case name != "modules.order" && name != "modules.builtin" && name != "modules.builtin.modinfo":
			continue
		}
		parts[to]["lib/modules/1.0/"+name] = string(text)
	}
	var packages []*Package
	for _, name := range sortedKeys(parts) {
		opened, err := deb.Open(debOf(t, parts[name], map[string]string{"control": "Package: " + name + "\nVersion: 1\nArchitecture: amd64\nDescription: x\n"}))
		if err != nil {
			t.Fatal(err)
		}
		layer, indices := filepath.Join(t.TempDir(), "layer"), filepath.Join(t.TempDir(), "indices")
		write(t, layer, &bytes.Buffer{}, func(w io.Writer) error { return Layer(opened, nil, w) })
		p, err := New(opened, layer)
		if err != nil {
			t.Fatal(err)
		}
		if IsKernel(name) { // those of the rest are of all of them
			made, err := p.Indices()
			if err != nil || (len(made.Paths()) > 1) != (name == "linux-modules-1.0") {
				t.Errorf("%s: %d indices, %v", name, len(made.Paths()), err)
			}
			write(t, indices, &bytes.Buffer{}, made.WriteTar)
			if p, err = New(opened, layer, indices); err != nil {
				t.Fatal(err)
			}
		}
		packages = append(packages, postinst(t, p, "linux-modules-*"))
	}
	laid, err := lay(t, packages...)
	if err != nil {
		t.Fatal(err)
	}
	want, err := modules.ReadFile("1.0/modules.dep")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := laid.ReadFile("usr/lib/modules/1.0/modules.dep"); string(got) != string(want) {
		t.Errorf("modules.dep is %q, %v, want %q", got, err, want)
	}
}

// TestInUsr: what lies where the links of a merged /usr are.
func TestInUsr(t *testing.T) {
	for p, want := range map[string]string{"lib/": "usr/lib", "lib -> usr/lib": "lib", "lib/x": "usr/lib/x", "bin/x": "usr/bin/x", "usr/lib/x": "usr/lib/x",
		"library/x": "library/x", "lib64/ld.so": "usr/lib64/ld.so", "etc/lib/x": "etc/lib/x"} {
		name, folder := strings.CutSuffix(p, "/")
		name, _, _ = strings.Cut(name, " ")
		if got := inUsr(name, folder); got != want {
			t.Errorf("%s lies at %s, want %s", p, got, want)
		}
	}
}

// TestNameServices: a service goes where its package says.
func TestNameServices(t *testing.T) {
	for position, want := range map[string]string{"after=files": "hosts: files me dns\n", "last": "hosts: files dns me\n"} {
		r := &root{Tree: tree.New()}
		if err := r.text("etc/nsswitch.conf", []byte("hosts: files dns\npasswd: files\n")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is there
			if err := r.installNSS("hosts/me from libnss-me in position " + position); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := r.ReadFile("etc/nsswitch.conf"); string(got) != want+"passwd: files\n" {
			t.Errorf("%s: %q, %v", position, got, err)
		}
	}
	if err := (&root{Tree: tree.New()}).installNSS("hosts/me from libnss-me in position first"); err == nil {
		t.Error("a position that nobody knows is taken")
	}
}

// TestMembers: a user of adduser's may be a member of other groups.
func TestMembers(t *testing.T) {
	u, err := readUsers([]byte(passwd), []byte("root:*:0:\nadm:*:4:\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.addSystemUser(User{Name: "syslog", Group: "syslog", Member: []string{"adm"}}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(u.groups[1], ":"); got != "adm:*:4:syslog" {
		t.Error(got)
	}
}
