package component_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/run"
)

const unitDir = "/usr/lib/systemd/system/"

// newer are directives that an older host's systemd does not know yet, and the
// version that does. The node has 257.
var newer = map[string]int{"ImportCredential": 254}

// writeUnits puts the plan's units and drop-ins in a folder and returns the units'
// names. A drop-in of a package's unit gets a plain unit to stand on.
func writeUnits(t *testing.T, p *plan.Plan) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range p.Files {
		name, ok := strings.CutPrefix(f.Path, unitDir)
		if !ok {
			continue
		}
		write(name, f.Text)
		unit := strings.TrimSuffix(strings.Split(name, "/")[0], ".d")
		if !slices.Contains(names, unit) {
			names = append(names, unit)
		}
		if file(p, unitDir+unit).Text == "" {
			write(unit, "[Service]\nExecStart=/bin/true\n")
		}
	}
	return dir, names
}

// judge returns what systemd says against the units in the folder. What it says
// of missing programs and of other units is about the host, not about them.
func judge(t *testing.T, dir string, names []string) []string {
	t.Helper()
	var said bytes.Buffer
	// Its exit code counts the missing programs, too: only what it says is read.
	_ = run.Run(context.Background(), run.Cmd{Name: "systemd-analyze", Args: append([]string{"verify", "--man=no"}, names...), Dir: dir,
		Env: []string{"SYSTEMD_UNIT_PATH=" + dir + ":/usr/lib/systemd/system:/lib/systemd/system", "SYSTEMD_LOG_LEVEL=notice", "SYSTEMD_COLORS=0"}, Stderr: &said, Quiet: true})
	var out []string
	for line := range strings.Lines(said.String()) {
		line = strings.TrimSpace(line)
		about := strings.HasPrefix(line, dir+"/") || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(line, n+":") })
		switch {
		case !about && !strings.Contains(line, "ordering cycle"):
		case strings.Contains(line, "is not executable"), strings.Contains(line, "not found"):
		case tooNew(t, line):
		default:
			out = append(out, strings.TrimPrefix(line, dir+"/"))
		}
	}
	return out
}

var unknownKey = regexp.MustCompile(`Unknown key (?:name )?'([A-Za-z]+)'`)

// tooNew says whether a complaint is of a directive that this host cannot know.
func tooNew(t *testing.T, line string) bool {
	m := unknownKey.FindStringSubmatch(line)
	return m != nil && systemdVersion(t) < newer[m[1]]
}

func systemdVersion(t *testing.T) int {
	t.Helper()
	out, err := run.Output(context.Background(), run.Cmd{Name: "systemd-analyze", Args: []string{"--version"}})
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(out), "systemd %d", &n); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return n
}

// TestSystemdTakesTheUnits asks the real systemd.
func TestSystemdTakesTheUnits(t *testing.T) {
	if _, err := run.Look("systemd-analyze"); err != nil {
		t.Skip("the host has no systemd-analyze")
	}
	for name, sets := range map[string][]string{"all on": {"ssh.enabled=true"}, "containerd of the base": {"containerd.source=base", "cni.name=none"}} {
		dir, names := writeUnits(t, decide(t, "master", sets...))
		if len(names) < 10 {
			t.Errorf("%s: only %v", name, names)
		}
		for _, line := range judge(t, dir, names) {
			t.Errorf("%s: %s", name, line)
		}
	}
}

// TestSystemdRefusesBadUnits shows that the judge of the test above does judge.
func TestSystemdRefusesBadUnits(t *testing.T) {
	if _, err := run.Look("systemd-analyze"); err != nil {
		t.Skip("the host has no systemd-analyze")
	}
	for _, bad := range []struct{ file, old, new string }{
		{"kubelet.service", "RestartSec=10", "RestartSeconds=10"},
		{"kubelet.service", "ExecStart=/usr/bin/kubelet", "ExecStart=kubelet/kubelet"},
		{"kubelet.service.d/10-kubeadm.conf", "EnvironmentFile=-/etc/default/kubelet", "EnvironmentFiles=-/etc/default/kubelet"},
		{"containerd.service.d/10-imgbuild.conf", "LimitNOFILE=1048576", "LimitNOFILE=many"},
		{"var.mount", "Where=/var", "Where=/srv"},
		{"imgbuild-firewall.service", "After=systemd-modules-load.service", "After=systemd-networkd.service systemd-modules-load.service"},
	} {
		dir, names := writeUnits(t, decide(t, "master", "ssh.enabled=true"))
		target := filepath.Join(dir, bad.file)
		text, err := os.ReadFile(target)
		if err != nil || !strings.Contains(string(text), bad.old) {
			t.Fatalf("%s: %v, no %q", bad.file, err, bad.old)
		}
		if err := os.WriteFile(target, []byte(strings.Replace(string(text), bad.old, bad.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if len(judge(t, dir, names)) == 0 {
			t.Errorf("%s with %q: not a word", bad.file, bad.new)
		}
	}
}

// TestMountUnitsAreNamedByTheirPath is systemd's rule, without systemd.
func TestMountUnitsAreNamedByTheirPath(t *testing.T) {
	for _, f := range decide(t, "worker").Files {
		if path.Ext(f.Path) != ".mount" {
			continue
		}
		_, rest, _ := strings.Cut(f.Text, "\nWhere=/")
		where, _, _ := strings.Cut(rest, "\n")
		if want := strings.ReplaceAll(where, "/", "-") + ".mount"; path.Base(f.Path) != want {
			t.Errorf("%s mounts /%s and must be called %s", f.Path, where, want)
		}
	}
}
