package source

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
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

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgbuild/imgbuild/builder/lock"
)

// authority signs as upstream's does: a root, and a leaf for each signer that lives for ten minutes.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string // PEM
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "roots.pem")}
	a.key, a.cert = a.issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	if err := os.WriteFile(a.file, pemOf(a.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(1)
	c.NotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c.NotAfter = c.NotBefore.Add(10 * time.Minute)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, out
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// sign gives .sig and .cert as the upstream host has them.
func (a *authority) sign(t *testing.T, body []byte, who, issuer string) (sig, cert string) {
	t.Helper()
	key, leaf := a.issue(t, &x509.Certificate{EmailAddresses: []string{who}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: fulcioIssuer, Value: []byte(issuer)}}})
	sum := sha256.Sum256(body)
	raw, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw), base64.StdEncoding.EncodeToString(pemOf(leaf))
}

const kubeadmPath = "/release/v1.37.2/bin/linux/amd64/kubeadm"

// host is a release host: files by path, which a test may spoil.
func host(t *testing.T, a *authority) (url string, files map[string]string) {
	t.Helper()
	body := self(t)
	sig, cert := a.sign(t, body, DefaultReleaseSigner, defaultIssuer)
	files = map[string]string{kubeadmPath: string(body), kubeadmPath + ".sha256": fmt.Sprintf("%x", sha256.Sum256(body)), kubeadmPath + ".sig": sig, kubeadmPath + ".cert": cert}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, files
}

// registryWith serves images under the paths that they have upstream.
func registryWith(t *testing.T, images map[string]v1.Image) (addr string) {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	addr = strings.TrimPrefix(srv.URL, "http://")
	for path, img := range images {
		push(t, addr+"/"+path, img)
	}
	return addr
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseOfASignedExecutable(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	other := strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		spoil   func(files map[string]string)
		version string
		roots   *authority
		say     string
	}{
		"good":           {roots: a},
		"good by digest": {},
		"certificate in PEM": {roots: a, spoil: func(f map[string]string) {
			text, _ := base64.StdEncoding.DecodeString(f[kubeadmPath+".cert"])
			f[kubeadmPath+".cert"] = string(text)
		}},
		"wrong bytes":     {spoil: func(f map[string]string) { f[kubeadmPath] = "evil" }, say: "not the bytes that were asked for"},
		"wrong digest":    {spoil: func(f map[string]string) { f[kubeadmPath+".sha256"] = other }, say: "want sha256:" + other},
		"no digest":       {spoil: func(f map[string]string) { f[kubeadmPath+".sha256"] = "<html>" }, say: "holds no SHA-256 digest"},
		"no such version": {version: "1.99.0", say: "is there a Kubernetes 1.99.0?"},
		"bytes and digest changed together": {roots: a, say: "the signature does not hold: it is not over sha256:", spoil: func(f map[string]string) {
			f[kubeadmPath], f[kubeadmPath+".sha256"] = "evil", fmt.Sprintf("%x", sha256.Sum256([]byte("evil")))
		}},
		"no signature":      {roots: a, spoil: func(f map[string]string) { delete(f, kubeadmPath+".sig") }, say: "kubeadm.sig: not found on the server"},
		"garbled signature": {roots: a, spoil: func(f map[string]string) { f[kubeadmPath+".sig"] = "%%%" }, say: "or it is no base64"},
		"unknown authority": {roots: stranger, say: "does not lead to a root in"},
		"another signer": {roots: a, say: `it is by "mallory@example.com", want "` + DefaultReleaseSigner, spoil: func(f map[string]string) {
			f[kubeadmPath+".sig"], f[kubeadmPath+".cert"] = a.sign(t, self(t), "mallory@example.com", defaultIssuer)
		}},
		"vouched for by another": {roots: a, say: `vouched for by "https://mallory.example.com"`, spoil: func(f map[string]string) {
			f[kubeadmPath+".sig"], f[kubeadmPath+".cert"] = a.sign(t, self(t), DefaultReleaseSigner, "https://mallory.example.com")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o, said := options(t)
			var files map[string]string
			o.ReleaseURL, files = host(t, a)
			if test.spoil != nil {
				test.spoil(files)
			}
			if test.roots != nil {
				o.ReleaseRoots = test.roots.file
			}
			req := part("kubeadm", "release")
			if test.version != "" {
				req.Version = test.version
			}
			s := New(o)
			pins, err := s.Resolve(t.Context(), []lock.Request{req})
			if err == nil {
				_, err = s.Parts(t.Context(), pins)
			}
			if test.say != "" {
				fails(t, err, test.say)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if byDigest := strings.Contains(said.String(), "checked by digest only"); byDigest == (test.roots != nil) {
				t.Errorf("notes: %s", said)
			}
		})
	}
}

func TestALockedSignatureIsCheckedAgain(t *testing.T) {
	a := newAuthority(t)
	o, _ := options(t)
	o.ReleaseURL, _ = host(t, a)
	o.ReleaseRoots = a.file
	s := New(o)
	pins, err := s.Resolve(t.Context(), []lock.Request{part("kubeadm", "release")})
	if err != nil {
		t.Fatal(err)
	}
	delete(pins[0].Args, "sig")
	_, err = s.Parts(t.Context(), pins)
	fails(t, err, "make the lock anew")
}

func TestReleaseImagesComeByDigest(t *testing.T) {
	const ref = "registry.k8s.io/coredns/coredns:v1.14.6"
	good, later := packed(t, map[string]string{"coredns": "good"}), packed(t, map[string]string{"coredns": "later"})
	o, _ := options(t)
	o.Registry = registryWith(t, map[string]v1.Image{"coredns/coredns:v1.14.6": good})
	s := New(o)
	pins, err := s.Resolve(t.Context(), []lock.Request{image(ref, "release")})
	if err != nil {
		t.Fatal(err)
	}
	push(t, o.Registry+"/coredns/coredns:v1.14.6", later) // the tag moves on
	images, err := s.Images(t.Context(), pins, nil)
	if err != nil {
		t.Fatal(err)
	}
	if images[0].Name != ref || digestOf(t, images[0].Image) != digestOf(t, good) {
		t.Errorf("got %s %s, want the image that was locked", images[0].Name, digestOf(t, images[0].Image))
	}
	_, err = s.Resolve(t.Context(), []lock.Request{image("registry.k8s.io/etcd:9", "release")})
	fails(t, err, "asking the registry for "+o.Registry+"/etcd:9")
}

func TestReleaseConstantsAreWhatItsKubeadmSays(t *testing.T) {
	o, _ := options(t)
	o.ReleaseURL, _ = host(t, newAuthority(t))
	got, err := New(o).Constants(t.Context(), "release", "1.37.2")
	if diff := cmp.Diff(fakeConstants, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestAuto(t *testing.T) {
	url, files := host(t, newAuthority(t))
	reg := registryWith(t, map[string]v1.Image{"kube-apiserver:v1.37.2": packed(t, map[string]string{"a": "b"})})
	for name, test := range map[string]struct {
		url, registry, want, say string
		gone                     bool
	}{
		"both answer":     {url: url, registry: reg, want: "release", say: "which answers"},
		"no host":         {url: "http://127.0.0.1:1", registry: reg, want: "gomodule", say: "connection refused"},
		"no registry":     {url: url, registry: "127.0.0.1:1", want: "gomodule", say: "asking the registry"},
		"no such version": {url: url, registry: reg, want: "gomodule", say: "not found on the server", gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			o, said := options(t)
			o.ReleaseURL, o.Registry = test.url, test.registry
			if test.gone {
				old := files[kubeadmPath+".sha256"]
				delete(files, kubeadmPath+".sha256")
				t.Cleanup(func() { files[kubeadmPath+".sha256"] = old })
			}
			s := New(o)
			for range 2 {
				if got, err := s.Choose(t.Context(), "auto"); got != test.want || err != nil {
					t.Errorf("Choose = %s, %v; want %s", got, err, test.want)
				}
			}
			if len(said.lines) != 1 || !strings.Contains(said.String(), test.say) {
				t.Errorf("notes %q; want one with %q", said.lines, test.say)
			}
		})
	}
}
