package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// failer is what of a test is needed here; scripts have one, too.
type failer interface {
	Helper()
	Fatal(args ...any)
}

// fakeAPI is an API server of a cluster's identity: it wants a client certificate
// of its CA in a group it knows, and keeps the secrets that are made.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	secrets []map[string]any
	nodes   string
}

const someNodes = `{"items":[
{"metadata":{"name":"worker-1","creationTimestamp":"2026-11-25T03:00:00Z"},"status":{"nodeInfo":{"kubeletVersion":"v1.37.2"},"addresses":[{"type":"InternalIP","address":"10.0.0.11"}],
 "conditions":[{"type":"Ready","status":"False","reason":"KubeletNotReady","message":"cni plugin not initialized","lastTransitionTime":"2026-11-25T03:01:00Z"}]}},
{"metadata":{"name":"master-1","creationTimestamp":"2026-11-25T02:00:00Z","labels":{"node-role.kubernetes.io/control-plane":""},
 "annotations":{"imgbuild.dev/first-boot":"{\"phase\":\"committed\",\"step\":\"commit\",\"attempt\":2,\"since\":\"2026-11-25T02:05:00Z\",\"image\":\"p1\"}"}},
 "status":{"nodeInfo":{"kubeletVersion":"v1.37.2"},"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-25T02:01:00Z"}]}}]}`

// serveAPI serves on addr with a certificate that lasts from now for life.
func serveAPI(t failer, dir, addr string, life time.Duration) *fakeAPI {
	t.Helper()
	c, err := identity.Load(dir)
	fatal(t, err)
	ca, err := tls.X509KeyPair([]byte(c.CACert), []byte(c.PKI.CAKey.Reveal()))
	fatal(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca.Leaf, key.Public(), ca.PrivateKey)
	fatal(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	f := &fakeAPI{nodes: someNodes}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert, ClientCAs: pool}
	f.Listener.Close()
	f.Listener, err = net.Listen("tcp", addr)
	fatal(t, err)
	f.StartTLS()
	return f
}

func fatal(t failer, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ServeHTTP implements http.Handler.
func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	group := ""
	if len(r.TLS.PeerCertificates) == 1 {
		leaf := r.TLS.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: f.TLS.ClientCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
			group = leaf.Subject.Organization[0]
		}
	}
	const secrets = "/api/v1/namespaces/kube-system/secrets"
	switch {
	case group == "":
		http.Error(w, `{"message":"Unauthorized"}`, http.StatusUnauthorized)
	case strings.HasPrefix(r.URL.Path, secrets) && group != identity.Admins:
		http.Error(w, `{"message":"secrets is forbidden"}`, http.StatusForbidden)
	case r.URL.Path == "/version":
		_, _ = io.WriteString(w, `{"gitVersion":"v1.37.2"}`)
	case r.URL.Path == "/api/v1/nodes":
		_, _ = io.WriteString(w, f.nodes)
	case strings.HasSuffix(r.URL.Path, "/certificatesigningrequests"):
		_, _ = io.WriteString(w, `{"items":[{"metadata":{"name":"csr-1","creationTimestamp":"2026-11-25T03:00:00Z"},"spec":{"username":"system:bootstrap:abcdef"},"status":{}},
{"metadata":{"name":"csr-2"},"status":{"certificate":"eA==","conditions":[{"type":"Approved","status":"True"}]}}]}`)
	case r.URL.Path == secrets && r.Method == http.MethodGet:
		items := []map[string]any{}
		for _, s := range f.secrets {
			data := map[string][]byte{}
			for k, v := range s["stringData"].(map[string]any) {
				data[k] = []byte(v.(string))
			}
			items = append(items, map[string]any{"data": data})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"items": items})
	case r.URL.Path == secrets && r.Method == http.MethodPost:
		var s map[string]any
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil || s["type"] != "bootstrap.kubernetes.io/token" {
			http.Error(w, `{"message":"bad secret"}`, http.StatusUnprocessableEntity)
			return
		}
		f.secrets = append(f.secrets, s)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(s)
	default:
		http.NotFound(w, r)
	}
}

// freePort is an address of this host that nobody listens on.
func freePort(t failer) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer l.Close()
	return l.Addr().String()
}
