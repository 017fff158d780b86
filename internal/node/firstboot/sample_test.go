package firstboot

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// sample is a node config for a role, of a new identity.
func sample(t *testing.T, role string) ([]byte, *config.NodeConfig) {
	t.Helper()
	c, err := identity.New("demo", "10.0.0.10:6443", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, role+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	n, err := config.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return data, n
}
