package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/run"
)

func make1(t *testing.T) *identity.Cluster {
	t.Helper()
	c, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNewRefuses(t *testing.T) {
	for name, endpoint := range map[string]string{"Demo Cluster": "10.0.0.10:6443", "demo": "10.0.0.10"} {
		if _, err := identity.New(name, endpoint, time.Hour); err == nil {
			t.Errorf("%s %s: no error", name, endpoint)
		}
	}
}

func TestIdentitiesDiffer(t *testing.T) {
	a, b := make1(t), make1(t)
	if a.Token.Reveal() == b.Token.Reveal() || a.CACert == b.CACert || a.PKI.CAKey.Reveal() == b.PKI.CAKey.Reveal() {
		t.Error("two identities share something")
	}
	if !regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`).MatchString(a.Token.Reveal()) {
		t.Error("the token has another form than kubeadm's")
	}
	for name, text := range map[string]string{"CA": a.CACert, "front proxy": a.PKI.FrontProxyCACert, "etcd": a.PKI.EtcdCACert} {
		cert, err := config.ParseCert(text)
		if err != nil || !cert.IsCA || time.Until(cert.NotBefore) > 0 || time.Until(cert.NotAfter) < 9*365*24*time.Hour {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
	}
}

func TestSaveLoadAndNeverOverwrite(t *testing.T) {
	c, dir := make1(t), filepath.Join(t.TempDir(), "demo")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, identity.MasterFile: 0o600, identity.WorkerFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	back, err := identity.Load(dir)
	if err != nil || back.Token.Reveal() != c.Token.Reveal() || back.CACert != c.CACert || back.TokenTTL != time.Hour || back.PKI.EtcdCAKey.Reveal() != c.PKI.EtcdCAKey.Reveal() {
		t.Errorf("load: %v", err)
	}
	if err := make1(t).Save(dir); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("a second save: %v", err)
	}
	entries, _ := os.ReadDir(filepath.Dir(dir))
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestKubeconfigIsSignedByTheCA(t *testing.T) {
	c := make1(t)
	text, err := c.Kubeconfig(identity.Operator{User: "ann", Groups: []string{identity.Admins}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		Users []struct {
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text.Reveal()), &k); err != nil {
		t.Fatal(err)
	}
	cert, _ := base64.StdEncoding.DecodeString(k.Users[0].User.Cert)
	key, _ := base64.StdEncoding.DecodeString(k.Users[0].User.Key)
	signed(t, c.CACert, cert, key, "ann", identity.Admins)
}

// signed wants a client's certificate of that subject, signed by the CA.
func signed(t *testing.T, ca string, cert, key []byte, name, group string) {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(pair.Certificate[0])
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ca))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if leaf.Subject.CommonName != name || leaf.Subject.Organization[0] != group {
		t.Error(leaf.Subject)
	}
}

// TestKubelet reads a kubelet's kubeconfig as the kubelet does.
func TestKubelet(t *testing.T) {
	c := make1(t)
	master := &config.NodeConfig{Cluster: c.Name, CACert: c.CACert, PKI: &c.PKI}
	text, pair, err := identity.Kubelet(master, "m2", "https://[fd00::2]:6443", "/pki/current.pem")
	if err != nil {
		t.Fatal(err)
	}
	signed(t, c.CACert, []byte(pair.Reveal()), []byte(pair.Reveal()), "system:node:m2", "system:nodes")
	var k struct {
		Clusters []struct{ Cluster map[string]string }
		Users    []struct{ User map[string]string }
	}
	if err := yaml.Unmarshal([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	if at, user := k.Clusters[0].Cluster["server"], k.Users[0].User; at != "https://[fd00::2]:6443" || user["client-certificate"] != "/pki/current.pem" || user["client-key"] != "/pki/current.pem" {
		t.Errorf("%s, %v", at, user)
	}
	master.PKI = &config.PKI{}
	if _, _, err := identity.Kubelet(master, "m2", "https://m2:6443", "/pki/current.pem"); err == nil {
		t.Error("signed without the CA's key")
	}
}

// TestKubeletOfAnOldCA has a CA that ends in an hour: the certificate ends with it.
func TestKubeletOfAnOldCA(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, _ := x509.MarshalECPrivateKey(key)
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	master := &config.NodeConfig{Cluster: "old", CACert: text("CERTIFICATE", der), PKI: &config.PKI{CAKey: config.NewSecret(text("EC PRIVATE KEY", private))}}
	_, pair, err := identity.Kubelet(master, "m2", "https://m2:6443", "/pki/current.pem")
	if err != nil {
		t.Fatal(err)
	}
	signed(t, master.CACert, []byte(pair.Reveal()), []byte(pair.Reveal()), "system:node:m2", "system:nodes")
	block, _ := pem.Decode([]byte(pair.Reveal()))
	if leaf, err := x509.ParseCertificate(block.Bytes); err != nil || leaf.NotAfter.After(ca.NotAfter) {
		t.Errorf("it ends at %v, its CA at %v: %v", leaf.NotAfter, ca.NotAfter, err)
	}
}

// TestCAHashIsOpenSSLs holds the pin against the recipe in kubeadm's documentation.
func TestCAHashIsOpenSSLs(t *testing.T) {
	if err := run.Need(map[string]string{"openssl": "openssl"}); err != nil {
		t.Skip(err)
	}
	c := make1(t)
	got, err := identity.CAHash(c.CACert)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	pub, err := run.Output(ctx, run.Cmd{Name: "openssl", Args: []string{"x509", "-pubkey", "-noout"}, Stdin: strings.NewReader(c.CACert)})
	if err != nil {
		t.Fatal(err)
	}
	der, err := run.Output(ctx, run.Cmd{Name: "openssl", Args: []string{"pkey", "-pubin", "-outform", "der"}, Stdin: strings.NewReader(string(pub))})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := run.Output(ctx, run.Cmd{Name: "openssl", Args: []string{"dgst", "-sha256", "-r"}, Stdin: strings.NewReader(string(der))})
	if err != nil || got != "sha256:"+strings.Fields(string(sum))[0] {
		t.Errorf("got %s, openssl says %s, %v", got, sum, err)
	}
}
