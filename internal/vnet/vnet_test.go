package vnet

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestMAC(t *testing.T) {
	if got, err := MAC("10.0.0.10"); err != nil || got != "52:54:00:00:00:0a" {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "ten", "fe80::1"} {
		if _, err := MAC(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestServeIsPrivateAndEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	n, err := Serve(Options{Subnet: "10.0.0.0/24", Gateway: "10.0.0.1"}, path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the network still listens")
	}
}
