package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const good = `apiVersion: imgbuild.dev/v1alpha1
kind: Inventory
machines:
- name: m1
  role: master
  config: cluster/master.yaml
  mac: ["52:54:00:00:00:0A", "52-54-00-00-00-0b"]
- name: w1
  role: worker
  config: /etc/worker.yaml
  uuid: 4C4C4544-0042-3510-8051-b4c04f303132
  serial: A 1
  network: [10-static.network]
  boot: diskless
  disk: /dev/vda
- name: f1
  userData: f1.ign
  serial: B 2
default:
  role: worker
  config: cluster/worker.yaml
`

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "machines.yaml")
	if err := os.WriteFile(file, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	m1, w1 := inv.Machines[0], inv.Machines[1]
	if m1.Config != filepath.Join(dir, "cluster/master.yaml") || strings.Join(m1.MAC, " ") != "52:54:00:00:00:0a 52:54:00:00:00:0b" {
		t.Errorf("%+v", m1)
	}
	if w1.Config != "/etc/worker.yaml" || w1.UUID != "4c4c4544-0042-3510-8051-b4c04f303132" || w1.Network[0] != filepath.Join(dir, "10-static.network") {
		t.Errorf("%+v", w1)
	}
	if f1 := inv.Machines[2]; f1.UserData != filepath.Join(dir, "f1.ign") || w1.Boot != Diskless || w1.Line() != 8 {
		t.Errorf("%+v %+v", w1, f1)
	}
	if inv.Default.Config != filepath.Join(dir, "cluster/worker.yaml") {
		t.Errorf("%+v", inv.Default)
	}
	if _, err := Read(filepath.Join(dir, "none")); err == nil {
		t.Error("what is not there was read")
	}
}

// TestBad wants each mistake by its line.
func TestBad(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"same MAC twice":     {"uuid: 4C4C", "mac: [\"52:54:00:00:00:0a\"]\n  uuid: 4C4C", "line 8: mac 52:54:00:00:00:0a: the machine of line 4 is known by it, too"},
		"same name twice":    {"name: w1", "name: m1", "line 8: name m1"},
		"no name":            {"name: w1", "name: ''", `line 8: name: "": want a DNS label`},
		"name that climbs":   {"name: w1", "name: ../w1", "line 8: name"},
		"role":               {"role: master", "role: boss", `line 4: role: "boss": want master or worker`},
		"MAC":                {"52-54-00-00-00-0b", "52-54-00", "line 4: mac[1]"},
		"UUID":               {"4C4C4544-0042-3510-8051-b4c04f303132", "4C4C", "line 8: uuid"},
		"unknown field":      {"role: master", "role: master\n  rolle: master", "line 6: field rolle"},
		"unknown top field":  {"default:", "defaults:", "defaults"},
		"kind":               {"kind: Inventory", "kind: Inventar", "want imgbuild.dev/v1alpha1 and Inventory"},
		"default with a MAC": {"default:\n", "default:\n  mac: [\"52:54:00:00:00:0c\"]\n", "one machine's own"},
		"key on two lines":   {"serial: A 1", `sshAuthorizedKeys: ["a b\nc d"]`, "line 8: sshAuthorizedKeys[0]"},
		"boot":               {"boot: diskless", "boot: often", `line 8: boot: "often": want install, diskless or local`},
		"disk":               {"disk: /dev/vda", "disk: /dev/../etc/passwd", "line 8: disk"},
		"disk of a file":     {"disk: /dev/vda", "disk: vda", "line 8: disk"},
		"disk, local":        {"boot: diskless", "boot: local", "line 8: disk: nothing is written"},
		"userData of a node": {"userData: f1.ign", "userData: f1.ign\n  role: worker", "line 16: userData: it is for another"},
		"same serial twice":  {"serial: B 2", "serial: A 1", "line 16: serial A 1"},
		"same UUID, upper":   {"serial: B 2", "uuid: 4c4C4544-0042-3510-8051-b4c04f303132", "line 16: uuid 4c4c4544"},
		"second document":    {"default:\n", "---\ndefault:\n", "second document"},
		"no list":            {"machines:\n", "machines: 1\nothers:\n", "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			if _, err := Parse([]byte(text)); text == good || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestPage reads the inventories of the documents.
func TestPage(t *testing.T) {
	for _, page := range []string{"stamp", "network-boot"} {
		text, err := os.ReadFile("../../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		_, yaml, _ := strings.Cut(string(text), "```yaml\n")
		yaml, _, _ = strings.Cut(yaml, "```")
		if inv, err := Parse([]byte(yaml)); err != nil || len(inv.Machines) < 3 {
			t.Errorf("docs/%s.md: %v", page, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if inv, err := Parse(data); err == nil {
			for _, m := range inv.all() {
				m.Keys()
			}
		}
	})
}
