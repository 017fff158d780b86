package firstboot

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

const (
	uuidA = "6b1f9a52-0000-4a4a-8888-000000000001"
	uuidB = "6b1f9a52-0000-4a4a-8888-000000000002"
)

// putMachine makes the node's /sys say who the machine is.
func (n *node) putMachine(uuid string, macs ...string) {
	for _, dir := range []string{"sys/class/dmi", "sys/class/net"} {
		if err := os.RemoveAll(filepath.Join(n.root, dir)); err != nil {
			n.t.Fatal(err)
		}
	}
	n.put("sys/class/dmi/id/product_uuid", uuid+"\n")
	n.put("sys/class/net/lo/address", "00:00:00:00:00:00\n")
	for i, mac := range macs {
		link := filepath.Join("sys/class/net", string(rune('a'+i)))
		n.put(link+"/address", mac+"\n")
		n.put(link+"/device/vendor", "")
	}
}

func TestSameMachine(t *testing.T) {
	type m = Machine
	for name, c := range map[string]struct {
		was, now m
		want     bool
	}{
		"the same":                         {m{UUID: uuidA, MACs: []string{"a"}}, m{UUID: uuidA, MACs: []string{"a"}}, true},
		"another network card":             {m{UUID: uuidA, MACs: []string{"a"}}, m{UUID: uuidA, MACs: []string{"b"}}, true},
		"another mainboard, its card kept": {m{UUID: uuidA, MACs: []string{"a", "b"}}, m{UUID: uuidB, MACs: []string{"b"}}, true},
		"a copy":                           {m{UUID: uuidA, MACs: []string{"a"}}, m{UUID: uuidB, MACs: []string{"b"}}, false},
		"a copy without a network card":    {m{UUID: uuidA, MACs: []string{"a"}}, m{UUID: uuidB}, false},
		"a copy with its disk's number":    {m{UUID: uuidA, MACs: []string{"a"}, Serials: []string{"disk 1"}}, m{UUID: uuidB, MACs: []string{"b"}, Serials: []string{"disk 1"}}, false},
		"no UUID, a copy":                  {m{MACs: []string{"a"}}, m{MACs: []string{"b"}}, false},
		"no UUID, one card of two changed": {m{MACs: []string{"a", "b"}}, m{MACs: []string{"b", "c"}}, true},
		"no UUID, the only card changed":   {m{MACs: []string{"a"}, Serials: []string{"disk 1"}}, m{MACs: []string{"b"}, Serials: []string{"disk 1"}}, true},
		"no UUID, the only disk changed":   {m{MACs: []string{"a"}, Serials: []string{"disk 1"}}, m{MACs: []string{"a"}, Serials: []string{"disk 2"}}, true},
		"the firmware learned a UUID":      {m{MACs: []string{"a"}}, m{UUID: uuidA, MACs: []string{"a"}}, true},
		"nothing to compare":               {m{UUID: uuidA}, m{MACs: []string{"a"}}, true},
	} {
		if got := c.now.same(c.was); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := c.was.same(c.now); got != c.want {
			t.Errorf("%s, turned round: %v, want %v", name, got, c.want)
		}
	}
}

func TestPlaceholdersIdentifyNothing(t *testing.T) {
	data, _ := sample(t, config.Master)
	for _, uuid := range []string{"00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "Not Settable", "03000200-0400-0500-0006-000700080009", ""} {
		n := newNode(t, config.Master, data)
		n.putMachine(uuid, "52:54:00:00:00:01")
		n.put("sys/class/net/b/address", "52:54:00:00:00:02\n") // without a device: a bridge
		n.put("sys/class/net/c/address", "52:54:00:00:00:03\n")
		n.put("sys/class/net/c/device/vendor", "")
		n.put("sys/class/net/c/addr_assign_type", "1\n")
		m := (&Agent{Root: n.root}).thisMachine()
		if m.UUID != "" || len(m.MACs) != 1 || m.name() != "52:54:00:00:00:01" {
			t.Errorf("%q: %+v", uuid, m)
		}
	}
}

func TestDiskSerial(t *testing.T) {
	data, _ := sample(t, config.Master)
	for _, c := range []struct{ file, want string }{
		{"sys/devices/pci/nvme0n1/wwid", "eui.1"}, {"sys/devices/pci/nvme0n1/device/wwid", "naa.2"}, {"sys/devices/pci/nvme0n1/serial", "v3"},
	} {
		n := newNode(t, config.Master, data)
		n.put(c.file, c.want+"\n")
		n.put("sys/devices/pci/nvme0n1/nvme0n1p4/partition", "4")
		n.put("dev/nvme0n1p4", "")
		for link, to := range map[string]string{"dev/disk/by-partlabel/imgbuild-var": "../../nvme0n1p4", "sys/class/block/nvme0n1p4": "../../devices/pci/nvme0n1/nvme0n1p4"} {
			if err := os.MkdirAll(filepath.Join(n.root, filepath.Dir(link)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(to, filepath.Join(n.root, link)); err != nil {
				t.Fatal(err)
			}
		}
		if got := (&Agent{Root: n.root}).diskSerial(); got != c.want {
			t.Errorf("%s: got %q", c.file, got)
		}
	}
}

// TestCopiedDiskDoesNotStart boots a member's disk elsewhere, at home after a new
// network card, and elsewhere for good.
func TestCopiedDiskDoesNotStart(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.putMachine(uuidA, "52:54:00:00:00:01")
	if said, err := n.boot(); err != nil || n.phase() != Committed {
		t.Fatalf("%v\n%s", err, said)
	}
	n.calls = nil
	n.putMachine(uuidB, "52:54:00:00:00:02")
	said, err := n.boot()
	if err == nil || len(n.calls) != 0 || n.phase() != Committed {
		t.Fatalf("the copy: %v, ran %q", err, n.calls)
	}
	for _, want := range []string{"this disk belongs to another machine: it is master-01234567 of " + uuidA + ", and this is " + uuidB, `adopt: "` + uuidB + `"`, "This node did not join its cluster."} {
		if !strings.Contains(said, want) {
			t.Errorf("the console lacks %q:\n%s", want, said)
		}
	}
	if _, err := os.Stat(filepath.Join(n.root, RunDir, kubeletFlag)); err == nil {
		t.Error("the copy's kubelet may start")
	}
	s, err := ReadStatus(filepath.Join(n.root, StatusFile))
	if err != nil || s.Step != "machine" || s.Phase != Committed || s.Cure == "" {
		t.Errorf("%+v, %v", s, err)
	}
	n.put("seed.yaml", string(data)+"adopt: "+uuidA+"\n") // names another machine
	n.put("dev/disk/by-label/IMGBUILD", "")
	if _, err := n.boot(); err == nil {
		t.Error("a config that adopts another machine was enough")
	}
	n.putMachine(uuidA, "52:54:00:00:00:09")
	if said, err := n.boot(); err != nil {
		t.Errorf("at home with a new network card: %v\n%s", err, said)
	}
	n.putMachine(uuidA)
	if said, err := n.boot(); err != nil || !strings.Contains(readFile(t, n, StateDir+"/journal.json"), "52:54:00:00:00:09") {
		t.Errorf("a link that is late is forgotten: %v\n%s", err, said)
	}
	n.put("seed.yaml", string(data)+"adopt: "+strings.ToUpper(uuidB)+"\n")
	n.putMachine(uuidB, "52:54:00:00:00:02")
	if said, err := n.boot(); err != nil || n.count("kubeadm") != 0 {
		t.Errorf("adopted: %v, ran %q\n%s", err, n.calls, said)
	}
	if err := os.Remove(filepath.Join(n.root, "dev/disk/by-label/IMGBUILD")); err != nil {
		t.Fatal(err)
	}
	if said, err := n.boot(); err != nil {
		t.Errorf("the boot after: %v\n%s", err, said)
	}
}

// TestDiskCopiedBeforeItJoined: a disk that only booted is somebody's, too.
func TestDiskCopiedBeforeItJoined(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.putMachine("Not Settable", "52:54:00:00:00:01")
	n.cutAt = 3
	if _, err := n.boot(); err == nil {
		t.Fatal("no cut")
	}
	n.cutAt, n.calls = 0, nil
	n.putMachine("Not Settable", "52:54:00:00:00:02")
	if _, err := n.boot(); err == nil || !strings.Contains(err.Error(), "belongs to another machine") || len(n.calls) != 0 {
		t.Errorf("%v, ran %q", err, n.calls)
	}
}

// TestNote wants the member to say on its own Node object how it became one.
func TestNote(t *testing.T) {
	data, c := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.fail["kubectl --kubeconfig /etc/kubernetes/admin.conf apply"] = 1
	if said, err := n.boot(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	const head = "kubectl --kubeconfig /etc/kubernetes/kubelet.conf --request-timeout=20s annotate node master-01234567 --overwrite imgbuild.dev/first-boot="
	var notes []config.Note
	for _, call := range n.calls {
		if text, ok := strings.CutPrefix(call, head); ok {
			var note config.Note
			if err := json.Unmarshal([]byte(text), &note); err != nil || strings.Contains(text, c.Token.Reveal()[7:]) {
				t.Errorf("%s: %v", text, err)
			}
			notes = append(notes, note)
		}
	}
	if len(notes) != 2 || notes[0].Phase != string(Published) || notes[0].Step != "pod network" || notes[0].Cause == "" ||
		notes[1].Phase != string(Committed) || notes[1].Cause != "" || notes[1].Attempt != 2 || notes[1].Image != "p1" || notes[1].Since.IsZero() {
		t.Errorf("noted %+v", notes)
	}
	n = newNode(t, config.Master, data)
	n.fail["kubectl --kubeconfig /etc/kubernetes/kubelet.conf"] = 3 // the kubelet has not made the object yet
	if said, err := n.boot(); err != nil || strings.Contains(said, "does not tell") || n.count("kubectl --kubeconfig /etc/kubernetes/kubelet.conf") != 4 {
		t.Errorf("an object that comes later: %v\n%s", err, said)
	}
	n = newNode(t, config.Master, data)
	n.fail["kubectl --kubeconfig /etc/kubernetes/kubelet.conf"] = noteTries
	if said, err := n.boot(); err != nil || n.phase() != Committed || !strings.Contains(said, "does not tell of the first boot") {
		t.Errorf("an API that does not take it: %v\n%s", err, said)
	}
	first := n.calls[len(n.calls)-1]
	n.calls = nil
	if said, err := n.boot(); err != nil || n.count(head) != 1 || n.calls[len(n.calls)-1] != first {
		t.Errorf("the next boot tells of the first: %v, ran %q, want %q\n%s", err, n.calls, first, said)
	}
	n.calls = nil
	if said, err := n.boot(); err != nil || n.count(head) != 0 {
		t.Errorf("and the one after has nothing to tell: %v, ran %q\n%s", err, n.calls, said)
	}
}

func readFile(t *testing.T, n *node, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(n.root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
