package firstboot

import (
	"context"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestRealAPIServer lets the agent look at a real API server: whether it lives, which
// cluster it serves and whether that is published, by a certificate made in memory.
func TestRealAPIServer(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver"} {
		if _, err := run.Look(name); err != nil {
			t.Skipf("the host has no %s", name)
		}
	}
	data, c := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.net.set(localAPI, "127.0.0.1:16443")
	a := n.agent(io.Discard)
	a.config = c
	startAPIServer(t, n, c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	uid, published := "", true
	for {
		var err error
		if uid, published, err = a.look(ctx, localAPI); err == nil {
			break
		}
		if pause(ctx, time.Second) != nil {
			t.Fatal(err)
		}
	}
	if len(uid) != 36 || published {
		t.Errorf("uid %q, published %v", uid, published)
	}
	n.put("etc/kubernetes/pki/ca.crt", c.CACert)
	for err := a.Livez(ctx); err != nil; err = a.Livez(ctx) { // its own roles come a moment later
		if pause(ctx, time.Second) != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.masterNodes(ctx); err == nil { // the endpoint is another address
		t.Error("nobody answers at the endpoint, and yet there are nodes")
	}
	n.net.set("10.0.0.10:6443", "127.0.0.1:16443")
	if _, err := a.masterNodes(ctx); err == nil || !strings.Contains(err.Error(), "no master yet") {
		t.Error(err)
	}
	if there, err := a.someoneAnswers(ctx, a.client(a.trust(), true)); err != nil || !there {
		t.Errorf("%v, %v", there, err)
	}
	_, stranger := sample(t, config.Master)
	n.put("etc/kubernetes/pki/ca.crt", stranger.CACert)
	if err := a.Livez(ctx); err == nil {
		t.Error("a stranger lives")
	}
}

// startAPIServer runs etcd and kube-apiserver until the test ends.
func startAPIServer(t *testing.T, n *node, c *config.NodeConfig) {
	t.Helper()
	dir := t.TempDir()
	leaf := server(t, c.CACert, c.PKI.CAKey, false, nil).TLS.Certificates[0]
	pub, err := identity.ServiceAccountPublicKey(c.PKI.ServiceAccountKey)
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"ca.crt": c.CACert, "sa.key": c.PKI.ServiceAccountKey.Reveal(), "sa.pub": pub, "server.key": c.PKI.CAKey.Reveal(),
		"server.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}))} {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const store = "http://127.0.0.1:23790"
	for _, cmd := range []run.Cmd{
		{Name: "etcd", Args: []string{"--data-dir", at("etcd"), "--listen-client-urls", store, "--advertise-client-urls", store, "--listen-peer-urls", "http://127.0.0.1:23800"}},
		{Name: "kube-apiserver", Args: []string{"--etcd-servers", store, "--secure-port", "16443", "--bind-address", "127.0.0.1", "--advertise-address", "10.0.0.10",
			"--client-ca-file", at("ca.crt"), "--tls-cert-file", at("server.crt"), "--tls-private-key-file", at("server.key"), "--authorization-mode", "RBAC",
			"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", at("sa.pub"), "--service-account-signing-key-file", at("sa.key"),
			"--service-cluster-ip-range", "10.96.0.0/24"}},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		log, err := os.Create(at(cmd.Name + ".log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr, cmd.Quiet = log, log, true
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = run.Run(ctx, cmd)
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
			if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
				t.Logf("%s:\n%s", cmd.Name, text[max(0, len(text)-3000):])
			}
			_ = log.Close()
		})
	}
}
