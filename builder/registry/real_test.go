package registry_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/registry"
	"github.com/imgbuild/imgbuild/builder/source"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/store"
)

// TestMain pushes or pulls where it is asked to, in a process of its own: the system's
// certificates are read once, and a process can be killed.
func TestMain(m *testing.M) {
	dir, at := os.Getenv("IMGBUILD_TEST_DIR"), os.Getenv("IMGBUILD_TEST_AT")
	var did any
	var err error
	slow := registry.Options{Report: report.Discard{}, Retries: 4, Backoff: 10 * time.Millisecond}
	switch os.Getenv("IMGBUILD_TEST_DO") {
	case "push":
		did, err = builder.Push(context.Background(), dir, at, slow)
	case "pull":
		did, err = builder.Pull(context.Background(), at, registry.Wanted{}, dir, os.Getenv("IMGBUILD_TEST_CACHE"), slow)
	case "base":
		did, err = base(context.Background(), at, os.Getenv("IMGBUILD_TEST_CACHE"))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(did)
}

// base pushes the image of an operating system, as other tools do, and takes it as a base.
func base(ctx context.Context, at, cache string) ([]string, error) {
	ref, err := name.ParseReference(at)
	if err != nil {
		return nil, err
	}
	img, err := random.Image(mib, 2)
	if err != nil {
		return nil, err
	}
	if err := remote.Write(ref, img, remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return nil, err
	}
	kept, err := store.Open(cache)
	if err != nil {
		return nil, err
	}
	s := source.New(source.Options{Arch: "amd64", Store: kept, Report: report.Discard{}})
	pins, err := s.ResolveBase(ctx, lock.Request{Kind: lock.KindBase, Name: "base", Source: "oci", Args: []string{at}})
	if err != nil {
		return nil, err
	}
	return s.Base(ctx, pins)
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

// debian is Debian's docker-registry, with TLS and a user with a password, behind a proxy
// that counts and can be in the way.
type debian struct {
	t          *testing.T
	top, at    string
	sent, got  atomic.Int64 // blobs that came and went whole
	inTheWay   atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	cert, repo string
	behind     string
}

func startDebian(t *testing.T) *debian {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed: make tools")
	}
	d := &debian{t: t, top: t.TempDir()}
	cert, key := certificate(t, d.top)
	d.cert = cert
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(d.top, "htpasswd"), "builder:"+string(hash)+"\n")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	behind := free.Addr().String()
	_ = free.Close()
	put(t, filepath.Join(d.top, "config.yml"), fmt.Sprintf(`version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %[1]s/data}}
http: {addr: %[2]s, relativeurls: true, tls: {certificate: %[3]s, key: %[4]s}}
auth: {htpasswd: {realm: nodes, path: %[1]s/htpasswd}}
`, d.top, behind, cert, key))
	server := exec.Command(program, "serve", filepath.Join(d.top, "config.yml"))
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
	for range 600 {
		if c, err := net.Dial("tcp", behind); err == nil {
			_ = c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.behind = behind
	d.front(behind, cert, key)
	d.repo = d.at + "/nodes:"
	return d
}

// front starts the proxy.
func (d *debian) front(behind, cert, key string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		d.t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "https", Host: behind})
	proxy.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 20}
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ModifyResponse = func(r *http.Response) error {
		switch {
		case r.Request.Method == http.MethodPut && strings.Contains(r.Request.URL.Path, "/blobs/uploads/") && r.StatusCode == http.StatusCreated:
			d.sent.Add(1)
		case r.Request.Method == http.MethodGet && strings.Contains(r.Request.URL.Path, "/blobs/sha256:") && r.StatusCode == http.StatusOK:
			d.got.Add(1)
		}
		return nil
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := d.inTheWay.Load(); f != nil && (*f)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	front.Config.ErrorLog = proxy.ErrorLog
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	front.StartTLS()
	d.t.Cleanup(front.Close)
	d.at = front.Listener.Addr().String()
}

// signIn writes what `docker login` does.
func (d *debian) signIn(password string) {
	put(d.t, filepath.Join(d.top, "config.json"), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, d.at, base64.StdEncoding.EncodeToString([]byte("builder:"+password))))
}

// process is a push or a pull.
func (d *debian) process(do, dir, cache, at string, env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append([]string{"SSL_CERT_FILE=" + d.cert, "SSL_CERT_DIR=/none", "DOCKER_CONFIG=" + d.top, "IMGBUILD_TEST_DO=" + do, "IMGBUILD_TEST_DIR=" + dir, "IMGBUILD_TEST_AT=" + at, "IMGBUILD_TEST_CACHE=" + cache}, env...)...)
	return cmd
}

func (d *debian) push(dir, tag string) (p registry.Pushed) {
	d.t.Helper()
	out, err := d.process("push", dir, "", d.repo+tag).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
	return p
}

func (d *debian) pull(dir, cache, tag string) {
	d.t.Helper()
	if out, err := d.process("pull", dir, cache, d.repo+tag).CombinedOutput(); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
}

// killed runs a process and kills it (SIGKILL) when n more blobs have moved.
func (d *debian) killed(cmd *exec.Cmd, moved *atomic.Int64, n int64) {
	d.t.Helper()
	begin := moved.Load()
	dead := make(chan struct{})
	var once sync.Once
	hold := func(_ http.ResponseWriter, r *http.Request) bool {
		if moved.Load()-begin >= n && strings.Contains(r.URL.Path, "/blobs/") {
			once.Do(func() { close(dead) })
			if _, err := io.Copy(io.Discard, r.Body); err == nil { // or else its end is not seen
				<-r.Context().Done() // it gets no answer any more
			}
			return true
		}
		return false
	}
	d.inTheWay.Store(&hold)
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	select {
	case <-dead:
	case <-time.After(time.Minute):
		d.t.Error("it came to an end by itself")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	d.inTheWay.Store(nil)
	time.Sleep(100 * time.Millisecond) // what is under way ends
}

// TestDebiansRegistry pushes to and pulls from Debian's docker-registry, over TLS, as a
// user with a password.
func TestDebiansRegistry(t *testing.T) {
	d := startDebian(t)
	dir, out, cache := t.TempDir(), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("d", 20*mib), make([]byte, 3*mib), noise("b", 20*mib))
	refused := func(want string, env ...string) {
		t.Helper()
		said, err := d.process("push", dir, "", d.repo+"1", env...).CombinedOutput()
		if err == nil || !strings.Contains(string(said), want) || strings.Contains(string(said), "hunter") {
			t.Errorf("%v: %s\nwant %q", err, said, want)
		}
	}
	refused("SSL_CERT_FILE", "SSL_CERT_FILE=/dev/null")
	refused("sign in first")
	d.signIn("hunter3")
	refused("sign in first")
	d.signIn("hunter2")

	first := d.push(dir, "whole")
	if first.Moved != first.Blobs || int64(first.Moved) != d.sent.Load() {
		t.Errorf("%+v, and %d blobs came: want all sent", first, d.sent.Load())
	}
	again := d.push(dir, "whole")
	if again.Moved != 0 || again.MovedSize != 0 || again.Reference != first.Reference || d.sent.Load() != int64(first.Moved) {
		t.Errorf("%+v, and %d blobs came: want nothing sent", again, d.sent.Load())
	}
	d.pull(out, cache, "whole")
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
	if int(d.got.Load()) != first.Blobs {
		t.Errorf("%d blobs were asked for, of %d", d.got.Load(), first.Blobs)
	}
	if said, err := d.process("base", "", t.TempDir(), d.at+"/os:1").CombinedOutput(); err != nil || bytes.Count(said, []byte("/blobs/")) != 2 {
		t.Errorf("%v: %s", err, said)
	}
	t.Logf("%d blobs, %d bytes; pushed again, %d bytes", first.Blobs, first.Bytes, again.MovedSize)
}

// TestKilled kills a push and a pull in the middle: what did not move, moves then.
func TestKilled(t *testing.T) {
	d := startDebian(t)
	d.signIn("hunter2")
	dir, out, cache := t.TempDir(), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("d", 20*mib), make([]byte, 3*mib), noise("b", 20*mib))
	d.killed(d.process("push", dir, "", d.repo+"1"), &d.sent, 7)
	before := d.sent.Load()
	p := d.push(dir, "1")
	if before < 7 || p.Moved == 0 || p.Moved > p.Blobs-int(before) || d.sent.Load() > int64(p.Blobs) { // one may have come unseen
		t.Errorf("%d blobs came before it was killed, then %d of %d, in all %d", before, p.Moved, p.Blobs, d.sent.Load())
	}
	d.killed(d.process("pull", out, cache, d.repo+"1"), &d.got, 7)
	half := d.got.Load()
	if left, _ := filepath.Glob(filepath.Join(out, "[^.]*")); half < 7 || len(left) > 0 {
		t.Errorf("%d blobs went; left: %v", half, left)
	}
	d.pull(out, cache, "1")
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
	if got := d.got.Load(); got > int64(p.Blobs)+8 { // those that were on their way
		t.Errorf("%d blobs went before it was killed, %d in all, of %d", half, got, p.Blobs)
	}
	t.Logf("push: %d of %d blobs, killed, then %d; pull: %d, killed, then %d", before, p.Blobs, p.Moved, half, d.got.Load()-half)
}

// TestBusyDebian: the registry is told to be busy, or breaks off, in front of every kind of request.
func TestBusyDebian(t *testing.T) {
	d := startDebian(t)
	d.signIn("hunter2")
	dir, out := t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("d", 6*mib))
	var mu sync.Mutex
	var n, waited int
	last := map[string]time.Time{}
	busy := func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + r.URL.Path
		if at, ok := last[key]; ok {
			if !at.IsZero() && time.Since(at) < time.Second {
				t.Errorf("%s: asked again after %v, told to wait 1 s", key, time.Since(at))
			}
			waited++
			last[key] = time.Time{}
			return false
		}
		if n++; n%5 != 0 {
			return false
		}
		switch n / 5 % 3 {
		case 0:
			last[key] = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 1:
			last[key] = time.Now()
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			last[key] = time.Time{}
			_, _ = io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler) // the connection breaks off
		}
		return true
	}
	d.inTheWay.Store(&busy)
	d.push(dir, "1")
	d.pull(out, t.TempDir(), "1")
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
	if waited < 5 {
		t.Errorf("asked again %d times", waited)
	}
	t.Logf("%d requests were put off or broke off", waited)
}

// TestBrokenUpload has what was sent of a blob reach the registry, and the answer not: it is begun anew.
func TestBrokenUpload(t *testing.T) {
	d := startDebian(t)
	d.signIn("hunter2")
	dir, out := t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("d", 6*mib))
	var broke atomic.Int64
	half := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch || broke.Add(1) > 3 {
			return false
		}
		resp, err := passOn(r, d)
		if err == nil {
			_ = resp.Body.Close()
		}
		panic(http.ErrAbortHandler)
	}
	d.inTheWay.Store(&half)
	d.push(dir, "1")
	d.inTheWay.Store(nil)
	d.pull(out, t.TempDir(), "1")
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
	if broke.Load() < 4 {
		t.Errorf("%d uploads broke off", broke.Load())
	}
}

// passOn sends a request once more, past what is in the way.
func passOn(r *http.Request, d *debian) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	again := r.Clone(context.Background())
	again.RequestURI, again.Body = "", io.NopCloser(bytes.NewReader(body))
	again.URL.Scheme, again.URL.Host = "https", d.behind
	return (&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}).RoundTrip(again)
}
