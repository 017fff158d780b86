package firstboot

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
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

// TestKubeadmAcceptsTheConfigs asks the real kubeadm, where KUBEADM names one.
func TestKubeadmAcceptsTheConfigs(t *testing.T) {
	kubeadm := os.Getenv("KUBEADM")
	if kubeadm == "" {
		t.Skip("KUBEADM names no kubeadm; the cluster test runs the real one on these configs")
	}
	facts := config.Facts{KubernetesVersion: "1.37.2", PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", DNSDomain: "cluster.local", ProxyMode: "nftables"}
	_, master := sample(t, config.Master)
	initText, err := initConfig(facts, master, "master")
	if err != nil {
		t.Fatal(err)
	}
	_, worker := sample(t, config.Worker)
	hash, _ := identity.CAHash(worker.CACert)
	joinText, err := joinConfig(facts, worker, "worker", hash)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"init": initText, "join": joinText} {
		file := filepath.Join(t.TempDir(), name+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run.Output(context.Background(), run.Cmd{Name: kubeadm, Args: []string{"config", "validate", "--config", file}}); err != nil {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, text)
		}
	}
}
