package rootfs

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// parts answers with the name itself as content.
type parts struct{}

var _ Parts = parts{}

func (parts) Part(name string) (tree.Content, error) {
	if name == "missing" {
		return nil, errors.New("no part of this name")
	}
	return tree.Bytes("ELF " + name), nil
}

func planOf(files []component.File, enable []component.Unit, mask ...string) *plan.Plan {
	return &plan.Plan{ID: strings.Repeat("ab", 32), Role: "worker", Spec: &spec.Node{Kubernetes: spec.Kubernetes{Version: "1.37.2"}},
		Files: files, Units: plan.Units{Enable: enable, Mask: mask}}
}

// host is a sealed tree, as small as can be.
func host() map[string]string {
	return map[string]string{
		"sbin": "-> usr/sbin", "usr/sbin/x": "old", "usr/lib/os-release": "ID=debian\n\n", "etc/resolv.conf": "-> ../run/resolv.conf", "opt": "-> var/opt", "var": "dir 0755",
		"usr/lib/systemd/system/kubelet.service": "[Unit]", "usr/lib/systemd/system/getty@.service": "[Unit]", "etc/systemd/system/own.service": "[Unit]",
		"usr/lib/systemd/system/apt-daily.timer": "[Unit]", "etc/systemd/system/old.service": "[Unit]", "etc/kubernetes": "dir 0755",
	}
}

func TestApply(t *testing.T) {
	before := grow(t, host())
	tr := grow(t, host())
	err := Apply(tr, planOf([]component.File{
		{Path: "/etc/kubernetes", Dir: true, Mode: 0o700},
		{Path: "/etc/new/dir", Dir: true, Mode: 0o1777},
		{Path: "/etc/resolv.conf", Mode: 0o644, Text: "nameserver 10.0.0.1\n"},
		{Path: "/etc/secret.conf", Mode: 0o600, Text: "s"},
		{Path: "/sbin/runc", Mode: 0o755, Part: "runc"},
		{Path: "/usr/bin/su", Mode: 0o4755, Text: "su"},
		{Path: "/usr/lib/cni", Link: "../libexec/cni"},
	}, []component.Unit{{Name: "kubelet.service", By: "multi-user.target"}, {Name: "getty@tty1.service", By: "getty.target"}, {Name: "own.service", By: "sysinit.target"}},
		"apt-daily.timer", "old.service", "not-there.service"), parts{})
	if err != nil {
		t.Fatal(err)
	}
	want := show(t, before)
	for p, what := range map[string]string{
		"etc/kubernetes": "dir 0700", "etc/new": "dir 0755", "etc/new/dir": "dir 1777", "etc/resolv.conf": "nameserver 10.0.0.1\n", "etc/secret.conf": "0600 s",
		"usr/sbin/runc": "0755 ELF runc", "usr/bin": "dir 0755", "usr/bin/su": "4755 su", "usr/lib/cni": "-> ../libexec/cni",
		"etc/systemd/system/multi-user.target.wants": "dir 0755", "etc/systemd/system/multi-user.target.wants/kubelet.service": "-> /usr/lib/systemd/system/kubelet.service",
		"etc/systemd/system/getty.target.wants": "dir 0755", "etc/systemd/system/getty.target.wants/getty@tty1.service": "-> /usr/lib/systemd/system/getty@.service",
		"etc/systemd/system/sysinit.target.wants": "dir 0755", "etc/systemd/system/sysinit.target.wants/own.service": "-> /etc/systemd/system/own.service",
		"etc/systemd/system/apt-daily.timer": "-> /dev/null", "etc/systemd/system/old.service": "-> /dev/null", "etc/systemd/system/not-there.service": "-> /dev/null",
		"usr/lib/os-release": "ID=debian\nIMAGE_ID=imgbuild-worker\nIMAGE_VERSION=1.37.2-abababababab\n",
	} {
		want[p] = what
	}
	if d := cmp.Diff(want, show(t, tr)); d != "" {
		t.Error(d)
	}
}

func TestApplyRefuses(t *testing.T) {
	one := func(f component.File) *plan.Plan { return planOf([]component.File{f}, nil) }
	unit := func(name string) *plan.Plan {
		return planOf(nil, []component.Unit{{Name: name, By: "multi-user.target"}})
	}
	for name, c := range map[string]struct {
		plan *plan.Plan
		want string
	}{
		"unit":              {unit("missing.service"), "units: missing.service is to start at boot, and nothing brings it"},
		"instance":          {unit("missing@tty1.service"), "units: missing@tty1.service is to start at boot, and nothing brings it"},
		"instance's unit":   {unit("kubelet@1.service"), "units: kubelet@1.service is to start at boot, and nothing brings it"},
		"part":              {one(component.File{Path: "/usr/bin/x", Part: "missing"}), "placing /usr/bin/x: no part of this name"},
		"below a file":      {one(component.File{Path: "/usr/sbin/x/y", Text: "t"}), "is not a directory"},
		"below a dead link": {one(component.File{Path: "/opt/x/y", Text: "t"}), `parent "opt" is not a directory`},
		"over a directory":  {one(component.File{Path: "/etc/systemd", Text: "t"}), "placing /etc/systemd: the base has a directory there"},
		"over the root":     {one(component.File{Path: "/", Link: "/tmp"}), "root must be a directory"},
		"NUL":               {one(component.File{Path: "/etc/a\x00b", Text: "t"}), "NUL"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Apply(grow(t, host()), c.plan, parts{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("no os-release", func(t *testing.T) {
		if err := Apply(tree.New(), planOf(nil, nil), parts{}); err == nil || !strings.Contains(err.Error(), "os-release") {
			t.Error(err)
		}
	})
}

func TestLayers(t *testing.T) {
	layer := func(names ...string) string {
		f, err := os.Create(filepath.Join(t.TempDir(), "layer.tar"))
		if err != nil {
			t.Fatal(err)
		}
		w := tar.NewWriter(f)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	tr, err := Layers([]string{layer("a", "b"), layer(".wh.a", "c")})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{".", "b", "c"}, tr.Paths()); d != "" {
		t.Error(d)
	}
	if _, err := Layers([]string{filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Layers([]string{layer("../x")}); err == nil {
		t.Error("a layer that climbs out was taken")
	}
}
