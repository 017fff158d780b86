package firstboot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// TestScreen holds what a person sees: plain lines, whatever programs said.
func TestScreen(t *testing.T) {
	since := time.Date(2026, 11, 25, 3, 50, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		s    Status
		want []string
	}{
		"nothing yet": {Status{Phase: Fresh, Step: "node config", Waiting: "no node config yet", Cure: "attach a disk", Since: since},
			[]string{"node     no name yet, no address yet", "step     node config", "waiting  no node config yet", "cure     attach a disk", "since    2026-11-25T03:50:00Z"}},
		"waiting": {Status{Phase: Fresh, Role: "worker", Hostname: "w1", Address: "10.0.0.11", Step: "waiting for the API", Number: 8, Of: 11, Attempt: 2, Waiting: "x does not answer", Since: since},
			[]string{"worker   w1, 10.0.0.11", "step     waiting for the API (8 of 11, try 2)", "waiting  x does not answer"}},
		"failed": {Status{Phase: Dirty, Role: "worker", Hostname: "w1", Step: "join", Number: 10, Of: 11, Attempt: 5, Cause: "kubeadm:\n\x1b[31merror\x1b[0m\r\n  twice", Cure: "look", Since: since},
			[]string{"failed   join (10 of 11, try 5)", "cause    kubeadm: ", "twice", "cure     look"}},
		"member": {Status{Phase: Committed, Role: "master", Hostname: "m1", Address: "10.0.0.10", Step: "kubelet", Since: since},
			[]string{"state    a member of its cluster"}},
	} {
		got := c.s.Screen()
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
		if strings.ContainsAny(got, "\x1b\r") || strings.Count(got, "\n") > 9 {
			t.Errorf("%s: not one plain screen:\n%q", name, got)
		}
	}
}

// TestSinceStaysWhileNothingChanges asks one that waits twice.
func TestSinceStaysWhileNothingChanges(t *testing.T) {
	a := Agent{Root: t.TempDir(), Console: &strings.Builder{}}
	a.status.Step, a.status.Waiting = "waiting for the API", "x"
	a.show()
	first := a.status.Since
	time.Sleep(2 * time.Millisecond)
	a.say("still there")
	if a.status.Since != first {
		t.Error("another time for the same wait")
	}
	a.status.Waiting = "y"
	a.show()
	if !a.status.Since.After(first) {
		t.Error("the old time for another wait")
	}
}

func TestReadStatus(t *testing.T) {
	if _, err := ReadStatus(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "has said nothing yet") {
		t.Error(err)
	}
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	if _, err := n.boot(); err != nil {
		t.Fatal(err)
	}
	s, err := ReadStatus(filepath.Join(n.root, StatusFile))
	if err != nil || s.Phase != Committed || s.Number != s.Of || s.Of < 10 {
		t.Errorf("%+v, %v", s, err)
	}
	if info, err := os.Stat(filepath.Join(n.root, StatusFile)); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
}
