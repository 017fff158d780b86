package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/run"
)

// webhook is the manual procedure's trouble: an admission webhook in a pod on the
// other node. With the pod network's port taken out of the worker's rules the API
// server waits in vain; with the rules loaded again it works.
func (s *suite) webhook(t *testing.T) {
	s.pull(t, s.c.Worker, "imgbuild.test", "webhook:1", webhookImage(t))
	cert, key := webhookCert(t)
	manifest, err := os.ReadFile("testdata/webhook.yaml")
	must(t, err)
	text := strings.NewReplacer("@WORKER@", sh(t, s.c.Worker, "hostname"), "@CERT@", cert, "@KEY@", key).Replace(string(manifest))
	sh(t, s.c.Master, "cat > /run/webhook.yaml <<'YAML'\n"+text+"\nYAML\nkubectl apply -f /run/webhook.yaml && kubectl wait --for=condition=Ready pod/webhook --timeout=600s")
	defer sh(t, s.c.Master, "kubectl delete -f /run/webhook.yaml --wait=false; rm /run/webhook.yaml")

	_, err = s.c.Master.Until(limited(t, 5*time.Minute), time.Second, "exec 3<>/dev/tcp/$(kubectl get service webhook -o jsonpath={.spec.clusterIP})/443") // kube-proxy hears of it later
	must(t, err)
	const rule = "nft -a list chain inet imgbuild input | sed -n 's/.*udp dport 8472 .*# handle //p'"
	sh(t, s.c.Worker, "handle=$("+rule+") && test -n \"$handle\" && nft delete rule inet imgbuild input handle $handle && { conntrack -D -p udp --dport 8472 >/dev/null 2>&1; true; }")
	const create = "kubectl -n hooked create configmap "
	if said := sh(t, s.c.Master, "! "+create+"without 2>&1"); !strings.Contains(said, "failed calling webhook") || !strings.Contains(said, "context deadline exceeded") {
		t.Errorf("without the pod network's port the API server says %q", said)
	} else {
		t.Logf("without the port: %s", said)
	}
	sh(t, s.c.Worker, "systemctl restart imgbuild-firewall && test -n \"$("+rule+")\"")
	said, err := s.c.Master.Until(limited(t, 5*time.Minute), 3*time.Second, create+"with 2>&1")
	must(t, err)
	t.Logf("with the port: %s", said)
	if said := sh(t, s.c.Master, "! "+create+"forbidden 2>&1"); !strings.Contains(said, "the webhook says no") {
		t.Errorf("the webhook was not asked: %q", said)
	}
}

// pull has a node pull an image from a registry on the network's gateway, which stands in
// for that host until the node boots again.
func (s *suite) pull(t *testing.T, m *boottest.Machine, host, image string, content v1.Image) {
	t.Helper()
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	near := httptest.NewServer(store)
	defer near.Close()
	tag, err := name.NewTag(strings.TrimPrefix(near.URL, "http://")+"/"+image, name.Insecure)
	must(t, err)
	must(t, remote.Write(tag, content))
	const addr = boottest.Gateway + ":9000"
	l, err := s.c.Net.Listen(addr)
	must(t, err)
	server := &http.Server{Handler: store, ReadHeaderTimeout: time.Minute}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	sh(t, m, "mkdir -p /etc/containerd/certs.d/"+host+" && echo 'server = \"http://"+addr+"\"' >/etc/containerd/certs.d/"+host+"/hosts.toml && crictl pull "+host+"/"+image)
}

// webhookImage is a container image with nothing but the webhook's program.
func webhookImage(t *testing.T) v1.Image {
	t.Helper()
	program := filepath.Join(t.TempDir(), "webhook")
	must(t, run.Run(context.Background(), run.Cmd{Name: "go", Dir: "../..", Env: []string{"CGO_ENABLED=0"},
		Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./test/kit/webhook"}}))
	data, err := os.ReadFile(program)
	must(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	must(t, w.WriteHeader(&tar.Header{Name: "webhook", Mode: 0o755, Size: int64(len(data))}))
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	must(t, err)
	image, err := mutate.AppendLayers(empty.Image, content)
	must(t, err)
	config, err := image.ConfigFile()
	must(t, err)
	config.OS, config.Architecture = "linux", "amd64"
	image, err = mutate.ConfigFile(image, config)
	must(t, err)
	return image
}

// webhookCert is a certificate for the webhook's service, its own authority, and
// its key, both as a Secret has them.
func webhookCert(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	const host = "webhook.default.svc"
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", secret)
}
