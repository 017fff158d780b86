package firstboot

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// TestForeignManifestIsAppliedAsItIs: what looks like flannel's place holders in a
// manifest of the user's stays, and no copy is made of it.
func TestForeignManifestIsAppliedAsItIs(t *testing.T) {
	for cni, want := range map[string]string{
		"flannel": "kubectl --kubeconfig /etc/kubernetes/admin.conf apply -f " + filepath.Join(RunDir, "network.yaml"),
		"calico":  "kubectl --kubeconfig /etc/kubernetes/admin.conf apply --server-side --force-conflicts -f /etc/imgbuild/manifests/calico.yaml",
		"none":    "",
	} {
		n := newNode(t, "master", nil)
		n.put("etc/imgbuild/manifests/"+cni+".yaml", "host: @API_HOST@")
		a := &Agent{Root: n.root, Runner: n, facts: config.Facts{CNI: cni}, config: &config.NodeConfig{Endpoint: net.JoinHostPort("10.0.0.10", "6443")}}
		if err := a.applyNetwork(t.Context()); err != nil {
			t.Errorf("%s: %v", cni, err)
		}
		if got := strings.Join(n.calls, "\n"); got != want {
			t.Errorf("%s: ran %q, want %q", cni, got, want)
		}
		text, err := os.ReadFile(filepath.Join(n.root, RunDir, "network.yaml"))
		if filled := err == nil && string(text) == "host: 10.0.0.10"; filled != (cni == "flannel") {
			t.Errorf("%s: place holders filled: %v", cni, filled)
		}
	}
}
