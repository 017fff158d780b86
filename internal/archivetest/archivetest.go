// Package archivetest is a small Debian archive on loopback for tests, signed by a
// key of its own. What it serves can be spoilt.
package archivetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/ulikunitz/xz"
)

// Archive is one archive; its files lie at URL.
type Archive struct {
	URL   string
	mu    sync.Mutex
	files map[string][]byte
	stall map[string]bool
	gone  chan struct{}
}

// Suite is what an archive publishes. Packages is the text of the index of Components[0] for
// Arches[0]; entries without Filename, Size and SHA256 get some.
type Suite struct {
	Name, Codename string // Codename is Name unless it is said
	Components     []string
	Arches         []string
	Date, Until    time.Time // Until is left out when zero
	Packages       string
	Release        func(text string) string   // changes the Release before it is signed
	Index          func(packed []byte) []byte // changes Packages.xz before it is listed
	Key            *openpgp.Entity
	NotAutomatic   bool
	Detached       bool // Release and Release.gpg, no InRelease
}

// Key makes a signing key. Its keyring is the second value.
func Key(t testing.TB) (*openpgp.Entity, []byte) {
	t.Helper()
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }}
	key, err := openpgp.NewEntity("Archive Test", "", "test@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	var ring bytes.Buffer
	if err := key.Serialize(&ring); err != nil {
		t.Fatal(err)
	}
	return key, ring.Bytes()
}

// New starts an archive at …/debian.
func New(t testing.TB) *Archive {
	t.Helper()
	a := &Archive{files: map[string][]byte{}, stall: map[string]bool{}, gone: make(chan struct{})}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(a.gone) })
	a.URL = server.URL + "/debian"
	return a
}

// ServeHTTP implements http.Handler.
func (a *Archive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	text, ok := a.files[strings.TrimPrefix(r.URL.Path, "/")]
	stall := a.stall[path.Base(r.URL.Path)]
	a.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if stall {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		_, _ = w.Write(text[:len(text)/2])
		w.(http.Flusher).Flush()
		select {
		case <-a.gone:
		case <-r.Context().Done():
		}
		return
	}
	_, _ = w.Write(text)
}

// Stall has files of that name stop halfway.
func (a *Archive) Stall(name string) { a.mu.Lock(); a.stall[name] = true; a.mu.Unlock() }

// Change replaces every file whose path ends so.
func (a *Archive) Change(end string, to func([]byte) []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, text := range a.files {
		if strings.HasSuffix(name, end) {
			a.files[name] = to(slices.Clone(text))
		}
	}
}

// Put adds a file.
func (a *Archive) Put(name string, text []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.files[name] = text
}

// Save writes all files into a folder on the disk.
func (a *Archive) Save(t testing.TB, dir string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, text := range a.files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// Remove takes away every file whose path has the part.
func (a *Archive) Remove(part string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.files {
		if strings.Contains(name, part) {
			delete(a.files, name)
		}
	}
}

// Publish writes a suite, at …/debian unless another folder is named.
func (a *Archive) Publish(t testing.TB, s Suite, folder ...string) {
	t.Helper()
	at := "debian"
	if len(folder) > 0 {
		at = folder[0]
	}
	if s.Codename == "" {
		s.Codename = s.Name
	}
	if s.Components == nil {
		s.Components = []string{"main"}
	}
	if s.Arches == nil {
		s.Arches = []string{"amd64"}
	}
	plain := complete(s.Packages)
	packed := pack(t, plain)
	if s.Index != nil {
		packed = s.Index(packed)
	}
	folderOf := path.Join(path.Base(s.Components[0]), "binary-"+s.Arches[0])
	var text strings.Builder
	fmt.Fprintf(&text, "Origin: Test\nSuite: %s\nCodename: %s\nDate: %s\n", s.Name, s.Codename, s.Date.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"))
	if !s.Until.IsZero() {
		fmt.Fprintf(&text, "Valid-Until: %s\n", s.Until.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"))
	}
	if s.NotAutomatic {
		text.WriteString("NotAutomatic: yes\n")
	}
	fmt.Fprintf(&text, "Acquire-By-Hash: yes\nArchitectures: %s\nComponents: %s\nSHA256:\n", strings.Join(s.Arches, " "), strings.Join(s.Components, " "))
	fmt.Fprintf(&text, " %x %d %s/Packages\n %x %d %s/Packages.xz\n", sha256.Sum256(plain), len(plain), folderOf, sha256.Sum256(packed), len(packed), folderOf)
	release := text.String()
	if s.Release != nil {
		release = s.Release(release)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	dist := path.Join(at, "dists", s.Name)
	if s.Detached {
		a.files[path.Join(dist, "Release")], a.files[path.Join(dist, "Release.gpg")] = []byte(release), detached(t, s.Key, release, s.Date)
	} else {
		a.files[path.Join(dist, "InRelease")] = Sign(t, s.Key, release, s.Date)
	}
	a.files[path.Join(dist, folderOf, "Packages.xz")] = packed
	a.files[path.Join(dist, folderOf, fmt.Sprintf("by-hash/SHA256/%x", sha256.Sum256(packed)))] = packed
}

// Sign makes a clear-signed message of the text, signed at that time.
func Sign(t testing.TB, key *openpgp.Entity, text string, at time.Time) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := clearsign.Encode(&out, key.PrivateKey, &packet.Config{Time: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func detached(t testing.TB, key *openpgp.Entity, text string, at time.Time) []byte {
	t.Helper()
	var out bytes.Buffer
	params := &openpgp.SignParams{Config: &packet.Config{Time: func() time.Time { return at }}}
	if err := openpgp.ArmoredDetachSign(&out, []*openpgp.Entity{key}, strings.NewReader(text), params); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// complete adds to each paragraph what a test does not care about.
func complete(packages string) []byte {
	var out strings.Builder
	for p := range strings.SplitSeq(strings.TrimSpace(packages), "\n\n") {
		if p == "" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(p, "Package: "), "\n")
		for field, value := range map[string]string{"Version": "1", "Architecture": "amd64", "Filename": "pool/" + name + ".deb", "Size": "1000", "SHA256": fmt.Sprintf("%x", sha256.Sum256([]byte(p)))} {
			if !strings.Contains("\n"+p, "\n"+field+":") {
				p += "\n" + field + ": " + value
			}
		}
		out.WriteString(p + "\n\n")
	}
	return []byte(out.String())
}

func pack(t testing.TB, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
