package firstboot

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// TestIgnition hands user data to Ignition where it is Ignition's, once, and not to have
// been done before all of it is.
func TestIgnition(t *testing.T) {
	data, _ := sample(t, config.Worker)
	n := newNode(t, config.Worker, data)
	run := func() []string {
		n.calls = nil
		if err := n.agent(io.Discard).Ignition(t.Context()); err != nil {
			t.Error(err)
		}
		return n.calls
	}
	if calls := run(); len(calls) > 0 {
		t.Errorf("without user data it runs %q", calls)
	}
	n.put(userData, "#cloud-config\nruncmd: []\n")
	if calls := run(); len(calls) > 0 {
		t.Errorf("for a cloud-config it runs %q", calls)
	}
	n.put(userData, `{"ignition": {"version": "2.3.0"}, "systemd": {"units": [{"name": "kubeadm.service", "enabled": true, "contents": "[Service]\nExecStart=/etc/kubeadm.sh\n"}]}}`)
	n.fail["systemctl daemon-reload"] = 1
	if err := n.agent(io.Discard).Ignition(t.Context()); err == nil || !strings.Contains(err.Error(), "it does not work") {
		t.Error(err)
	}
	calls := run()
	want := []string{"fetch", "disks", "files", "systemctl daemon-reload", "systemctl preset kubeadm.service", "systemctl start --no-block kubeadm.service"}
	if len(calls) != len(want) || slices.ContainsFunc(want[:3], func(stage string) bool {
		return !strings.HasPrefix(calls[slices.Index(want, stage)], "env IGNITION_CONFIG_FILE="+ignitionConfig+" "+engine+" --platform=file --stage="+stage)
	}) || !slices.Equal(calls[3:], want[3:]) {
		t.Errorf("it runs %q", calls)
	}
	if calls := run(); len(calls) > 0 {
		t.Errorf("once more it runs %q", calls)
	}
	if left, err := os.ReadFile(filepath.Join(n.root, ignitionConfig)); err == nil {
		t.Errorf("it leaves %s", left)
	}
	n.put(userData, `{"ignition": {"version": "2.9.0"}}`)
	if err := n.agent(io.Discard).Ignition(t.Context()); err == nil || !strings.Contains(err.Error(), "Ignition 2.9.0") {
		t.Error(err)
	}
}
