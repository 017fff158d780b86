package firstboot

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// TestForget wants the node config that came with a host's config to be gone once the
// node is a member, and its token out of what cloud-init keeps, byte for byte as long.
func TestForget(t *testing.T) {
	data, c := sample(t, config.Worker)
	n := newNode(t, config.Worker, data)
	n.put(config.Credstore, string(data))
	const kept, other = "/var/lib/cloud/instances/i-1/user-data.txt", "/var/lib/cloud/data/result.json"
	n.put(kept, "\x80\x04 token: "+c.Token.Reveal()+"\n")
	n.put(other, "{}")
	if err := n.agent(io.Discard).forgetToken(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{kept: "\x80\x04 token: xxxxxxxxxxxxxxxxxxxxxxx\n", other: "{}"} {
		if got, err := os.ReadFile(filepath.Join(n.root, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(n.root, config.Credstore)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", config.Credstore, err)
	}
	if err := n.agent(io.Discard).forgetToken(); err != nil {
		t.Errorf("once more: %v", err)
	}
}
