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
	return sampleOf(t, "10.0.0.10:6443", role+".yaml")
}

// sampleOf is one file of a new identity; masters make the endpoint a virtual address.
func sampleOf(t *testing.T, endpoint, file string, masters ...string) ([]byte, *config.NodeConfig) {
	t.Helper()
	c, err := identity.New("demo", endpoint, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetMasters(len(masters) > 0, masters); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	n, err := config.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return data, n
}
