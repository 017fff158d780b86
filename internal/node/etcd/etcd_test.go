package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

func TestMemberWords(t *testing.T) {
	m := Member{ID: "1", PeerURLs: []string{"https://[fd00::1]:2380"}}
	if !m.At("fd00::1") || m.At("fd00::2") || m.Host() != "fd00::1" || !m.Voter() || (Member{}).Host() != "" {
		t.Errorf("%+v", m)
	}
}

// TestRealEtcd goes through what a joining master may meet, with the real etcd: a
// learner is removed, a voter that never started takes the quorum away and cannot be
// removed, and can be once it runs; one that starts without the other tells nothing.
func TestRealEtcd(t *testing.T) {
	if _, err := run.Look("etcd"); err != nil {
		t.Skip("the host has no etcd")
	}
	const one, two = "127.0.0.11", "127.0.0.12"
	id, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := certificates(t, id, one, two, "127.0.0.1") // peers check where a connection comes from
	conf, err := identity.ClientTLS(id.PKI.EtcdCACert, id.PKI.EtcdCAKey, "test", "")
	if err != nil {
		t.Fatal(err)
	}
	c := Client{HTTP: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}}
	end := start(t, dir, "m1", one, "new", "m1="+PeerURL(one))
	members := until(t, "the first answers", func(ctx context.Context) ([]Member, error) { return c.Members(ctx, one) })
	if len(members) != 1 || members[0].Name != "m1" || !members[0].At(one) {
		t.Fatalf("%+v", members)
	}
	add := func(learner bool) Member {
		return until(t, "a member is added", func(ctx context.Context) (Member, error) {
			var out struct{ Member Member }
			return out.Member, c.post(ctx, one, "/v3/cluster/member/add", map[string]any{"peerURLs": []string{PeerURL(two)}, "isLearner": learner}, &out)
		})
	}
	add(true)
	members = until(t, "the learner is seen", func(ctx context.Context) ([]Member, error) { return c.Members(ctx, one) })
	if len(members) != 2 || members[1].Voter() == members[0].Voter() {
		t.Fatalf("%+v", members)
	}
	for _, m := range members {
		if m.At(two) {
			until(t, "the learner is removed", func(ctx context.Context) (struct{}, error) { return struct{}{}, c.Remove(ctx, one, m.ID) })
			until(t, "and again", func(ctx context.Context) (struct{}, error) { return struct{}{}, c.Remove(ctx, one, m.ID) })
		}
	}

	add(false)
	both := "m1=" + PeerURL(one) + ",m2=" + PeerURL(two)
	endOther := start(t, dir, "m2", two, "existing", both)
	until(t, "the other one answers", func(ctx context.Context) ([]Member, error) { return c.Members(ctx, two) })
	end()
	endOther()
	start(t, dir, "m1", one, "existing", both)
	alone, cancel := context.WithTimeout(t.Context(), 8*time.Second) // after which it would have answered
	defer cancel()
	for alone.Err() == nil {
		if members, err := c.Members(alone, one); err == nil {
			t.Fatalf("the first alone names %+v", members)
		}
	}
	endOther = start(t, dir, "m2", two, "existing", both)
	leave(t, c, "it is removed once both run", one, two)
	endOther()
	if err := os.RemoveAll(filepath.Join(dir, "m2")); err != nil {
		t.Fatal(err)
	}

	ghost := add(false)
	members = until(t, "without a quorum members are told", func(ctx context.Context) ([]Member, error) { return c.Members(ctx, one) })
	if i := slices.IndexFunc(members, func(m Member) bool { return m.At(two) }); i < 0 || members[i].ID != ghost.ID || members[i].Name != "" {
		t.Fatalf("%+v, %+v", members, ghost)
	}
	if err := c.Remove(t.Context(), one, ghost.ID); err == nil {
		t.Fatal("it was removed without a quorum")
	}
	start(t, dir, "m2", two, "existing", both)
	leave(t, c, "it is removed once it runs", one, two)
}

// leave removes the member at the address two through the one at one.
func leave(t *testing.T, c Client, stage, one, two string) {
	t.Helper()
	until(t, stage, func(ctx context.Context) (struct{}, error) {
		members, err := c.Members(ctx, one)
		for _, m := range members {
			if m.At(two) {
				err = errors.Join(err, c.Remove(ctx, one, m.ID))
			}
		}
		return struct{}{}, err
	})
	if members, err := c.Members(t.Context(), one); err != nil || len(members) != 1 {
		t.Errorf("%s: %+v, %v", stage, members, err)
	}
}

func until[T any](t *testing.T, stage string, what func(context.Context) (T, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, err := what(ctx)
		if err == nil {
			return out
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", stage, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// start runs etcd as kubeadm's manifest does, until it is ended or the test is.
func start(t *testing.T, dir, name, address, state, cluster string) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	client := "https://" + net.JoinHostPort(address, "2379")
	crt, key, ca := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"), filepath.Join(dir, "ca.crt")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = run.Run(ctx, run.Cmd{Name: "etcd", Stdout: log, Stderr: log, Quiet: true, Args: []string{"--name", name, "--data-dir", filepath.Join(dir, name),
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", PeerURL(address), "--initial-advertise-peer-urls", PeerURL(address),
			"--cert-file", crt, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth",
			"--peer-cert-file", crt, "--peer-key-file", key, "--peer-trusted-ca-file", ca, "--peer-client-cert-auth",
			"--initial-cluster", cluster, "--initial-cluster-state", state}})
	}()
	end = func() {
		cancel()
		<-ended
	}
	t.Cleanup(func() {
		end()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", name, text[max(0, len(text)-3000):])
		}
		_ = log.Close()
	})
	return end
}

// certificates writes what an etcd of the identity needs to serve at the addresses.
func certificates(t *testing.T, id *identity.Cluster, addresses ...string) string {
	t.Helper()
	ca, err := config.ParseCert(id.PKI.EtcdCACert)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(id.PKI.EtcdCACert), []byte(id.PKI.EtcdCAKey.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "etcd"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, a := range addresses {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(a))
	}
	der, err := x509.CreateCertificate(random{}, leaf, ca, ca.PublicKey, pair.PrivateKey) // the authority's own key serves the test
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"ca.crt": id.PKI.EtcdCACert, "server.key": id.PKI.EtcdCAKey.Reveal(),
		"server.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// random reads from the one source of randomness.
type random struct{}

var _ io.Reader = random{}

func (random) Read(p []byte) (int, error) { return copy(p, repro.Secret(len(p))), nil }
