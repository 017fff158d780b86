package registry_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/registry"
)

func blocks(t *testing.T, file string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// certificate makes a key and a certificate for this machine, which is its own authority.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return cert, key
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDebiansRegistry pushes to and pulls from Debian's docker-registry, over TLS, as a
// user with a password.
func TestDebiansRegistry(t *testing.T) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed: make tools")
	}
	top := t.TempDir()
	cert, key := certificate(t, top)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "htpasswd"), "builder:"+string(hash)+"\n")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	_ = free.Close()
	put(t, filepath.Join(top, "config.yml"), fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: %[2]s, tls: {certificate: %[3]s, key: %[4]s}}
auth: {htpasswd: {realm: nodes, path: %[1]s/htpasswd}}
`, top, at, cert, key))
	server := exec.Command(program, "serve", filepath.Join(top, "config.yml"))
	var said bytes.Buffer
	server.Stderr = &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	for range 100 {
		if c, err := net.Dial("tcp", at); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	dir, to := t.TempDir(), at+"/nodes:1"
	build(t, dir, "worker", "amd64", noise("d", 6*mib), make([]byte, 3*mib), noise("b", 3*mib))
	// The system's certificates are read once: each try is a process of its own.
	try := func(want string, env ...string) {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestOnce$")
		cmd.Env = append(os.Environ(), append(env, "IMGBUILD_TEST_FROM="+dir, "IMGBUILD_TEST_TO="+to, "DOCKER_CONFIG="+top)...)
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || (err == nil) != (want == "PASS") {
			t.Errorf("%v: %s\nwant %q", err, out, want)
		}
	}
	try("SSL_CERT_FILE")
	try("sign in first", "SSL_CERT_FILE="+cert)
	put(t, filepath.Join(top, "config.json"), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, at, base64.StdEncoding.EncodeToString([]byte("builder:secret"))))
	try("PASS", "SSL_CERT_FILE="+cert)
}

// TestOnce is what TestDebiansRegistry does in a process of its own.
func TestOnce(t *testing.T) {
	dir, to := os.Getenv("IMGBUILD_TEST_FROM"), os.Getenv("IMGBUILD_TEST_TO")
	if dir == "" {
		t.Skip("part of TestDebiansRegistry")
	}
	first := push(t, dir, to)
	if again := push(t, dir, to); first.Moved != first.Blobs || again.Moved != 0 || again.Reference != first.Reference {
		t.Errorf("%+v, and again %+v: want all sent, then nothing", first, again)
	}
	out := t.TempDir()
	if _, err := builder.Pull(t.Context(), first.Reference, registry.Wanted{}, out, t.TempDir(), quick); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
}
