package firstboot

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/etcd"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// network says where the test listens for an address; loopback addresses other
// than the API's are themselves, and nobody answers at any other.
type network struct {
	mu sync.Mutex
	to map[string]string
}

func newNetwork() *network { return &network{to: map[string]string{}} }

func (n *network) set(address, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.to[address] = to
}

func (n *network) get(address string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.to[address]
}

func (n *network) dial(ctx context.Context, netw, address string) (net.Conn, error) {
	to := n.get(address)
	if to == "" && strings.HasPrefix(address, "127.0.0.1:") && address != localAPI {
		to = address
	}
	if to == "" {
		return nil, fmt.Errorf("nobody listens at %s", address)
	}
	return new(net.Dialer).DialContext(ctx, netw, to)
}

// server is a TLS server whose certificate an authority of the cluster has signed
// and that wants a client's certificate of the same authority, if mutual.
func server(t *testing.T, caCert string, caKey config.Secret, mutual bool, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	ca, err := config.ParseCert(caCert)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(caKey.Reveal()))
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "server"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, ip := range []string{"127.0.0.1", "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.100"} {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(ip))
	}
	der, err := x509.CreateCertificate(random{}, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: (*ecdsa.PrivateKey)(key)}}}
	s.TLS.ClientCAs = x509.NewCertPool()
	s.TLS.ClientCAs.AddCert(ca)
	s.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	if mutual {
		s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// random reads from the one source of randomness.
type random struct{}

func (random) Read(p []byte) (int, error) { return copy(p, repro.Secret(len(p))), nil }

// fakeAPI is an API server of a cluster.
type fakeAPI struct {
	*httptest.Server
	mu        sync.Mutex
	uid       string
	published bool
	hurt      bool   // it answers 500
	young     string // a master that came just now, and is not Ready
	token     string
}

func newAPI(t *testing.T, c *config.NodeConfig, uid string) *fakeAPI {
	t.Helper()
	f := &fakeAPI{uid: uid, token: c.Token.Reveal()[:6]}
	f.Server = server(t, c.CACert, c.PKI.CAKey, false, f.answer)
	return f
}

func (f *fakeAPI) address() string { return f.Listener.Addr().String() }

func (f *fakeAPI) publish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = true
}

func (f *fakeAPI) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	admin := len(r.TLS.PeerCertificates) > 0
	switch {
	case f.hurt:
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/version" || r.URL.Path == "/livez":
		_, _ = io.WriteString(w, "{}")
	case strings.HasSuffix(r.URL.Path, "/cluster-info") && f.published:
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]string{"jws-kubeconfig-" + f.token: "signature"}})
	case strings.HasSuffix(r.URL.Path, "/kube-system") && admin:
		_ = json.NewEncoder(w).Encode(map[string]any{"metadata": map[string]string{"uid": f.uid}})
	case r.URL.Path == "/api/v1/nodes" && admin:
		came := "2026-01-01T00:00:00Z" // long ago: not waited for
		if f.young != "" {
			came = repro.Now().UTC().Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(w, `{"items":[{"metadata":{"name":%q,"creationTimestamp":%q},"status":{"addresses":[{"type":"Hostname","address":"a"},{"type":"InternalIP","address":"10.0.0.10"}],"conditions":[{"type":"Ready","status":"False"}]}}]}`, f.young, came)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// fakeEtcd is one member's JSON gateway.
type fakeEtcd struct {
	*httptest.Server
	mu       sync.Mutex
	members  []etcd.Member
	noQuorum int // how many removals fail
	removed  []string
}

func newEtcd(t *testing.T, c *config.NodeConfig, members ...etcd.Member) *fakeEtcd {
	t.Helper()
	f := &fakeEtcd{members: members}
	f.Server = server(t, c.PKI.EtcdCACert, c.PKI.EtcdCAKey, true, f.answer)
	return f
}

func (f *fakeEtcd) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.URL.Path {
	case "/v3/cluster/member/list":
		_ = json.NewEncoder(w).Encode(map[string]any{"header": map[string]string{"cluster_id": "1"}, "members": f.members})
	case "/v3/cluster/member/remove":
		var in struct{ ID string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		if f.noQuorum > 0 {
			f.noQuorum--
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"code":14,"message":"etcdserver: request timed out"}`)
			return
		}
		f.removed = append(f.removed, in.ID)
		for i, m := range f.members {
			if m.ID == in.ID {
				f.members = append(f.members[:i:i], f.members[i+1:]...)
				break
			}
		}
		_, _ = io.WriteString(w, "{}")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *fakeEtcd) gone() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.removed...)
}

// bootUntil runs the agent until it says a text, or ends, and returns what it said.
func (n *node) bootUntil(text string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n.cancel = cancel
	said := &ear{text: text, heard: cancel}
	err := n.agent(said).Run(ctx)
	return said.all.String(), err
}

// ear listens for a text.
type ear struct {
	text  string
	heard func()
	all   strings.Builder
}

func (e *ear) Write(p []byte) (int, error) {
	e.all.Write(p)
	if strings.Contains(e.all.String(), e.text) {
		e.heard()
	}
	return len(p), nil
}

// dialer connects where the function says; nowhere is nobody.
func dialer(to func(ctx context.Context, address string) string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, netw, address string) (net.Conn, error) {
		if where := to(ctx, address); where != "" {
			return new(net.Dialer).DialContext(ctx, netw, where)
		}
		return nil, fmt.Errorf("nobody listens at %s", address)
	}
}
