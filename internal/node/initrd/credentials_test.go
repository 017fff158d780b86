//go:build linux

package initrd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestHandOn hands on what a stamp writes, and nothing else that may lie there.
func TestHandOn(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "credentials/@initrd")
	if err := handOn(filepath.Join(from, "none"), to); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("without a credential there is a folder for them")
	}
	for _, name := range []string{"imgbuild.node.cred", "network.network.10-static.cred", "systemd.extra-unit.evil.service.cred", "ssh.authorized_keys.root.cred", "imgbuild.node"} {
		write(t, filepath.Join(from, name), "text of "+name)
	}
	if err := handOn(from, to); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"imgbuild.node", "network.network.10-static"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if text, err := os.ReadFile(filepath.Join(to, "imgbuild.node")); err != nil || string(text) != "text of imgbuild.node.cred" {
		t.Errorf("%q, %v", text, err)
	}
}
