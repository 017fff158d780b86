package registry_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	local "github.com/google/go-containerregistry/pkg/registry"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/registry"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
)

const mib = 1 << 20

// noise makes bytes that do not pack, others for each seed.
func noise(seed string, size int) []byte {
	out := make([]byte, 0, size+sha256.Size)
	for sum := sha256.Sum256([]byte(seed)); len(out) < size; sum = sha256.Sum256(sum[:]) {
		out = append(out, sum[:]...)
	}
	return out[:size]
}

// build lays a build into a folder: a disk with holes and the same as another format, a
// document, signatures, a lock and the manifest.
func build(t testing.TB, dir, role, arch string, disk ...[]byte) {
	t.Helper()
	put := func(name string, text []byte) map[string]any {
		for file, text := range map[string][]byte{name: text, name + ".sig": []byte("signature of " + name)} {
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		format := strings.TrimPrefix(filepath.Ext(name), ".")
		if format == "json" {
			format = "spdx"
		}
		return map[string]any{"format": format, "file": name, "size": len(text), "sha256": digest(text)[7:]}
	}
	raw := bytes.Join(append([][]byte{[]byte("boot"), make([]byte, mib)}, disk...), nil)
	outputs := []any{put(role+".raw", raw), put(role+".vhd", append(bytes.Clone(raw), "conectix"...))}
	text, _ := json.Marshal(map[string]any{"id": role + arch, "role": role, "arch": arch, "kubernetes": "1.37.2", "outputs": outputs, "documents": []any{put(role+".spdx.json", []byte(role+" bill"))}})
	put(role+".manifest.json", text)
	if err := os.WriteFile(filepath.Join(dir, "imgbuild.lock"), []byte("lock\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name()] = digest(text)
	}
	return out
}

// served is a registry in memory on this machine, which counts blobs that go out.
type served struct {
	at   string // REGISTRY/REPOSITORY:
	gets atomic.Int64
	deny func(w http.ResponseWriter, r *http.Request) bool
}

func serve(t testing.TB) *served {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s := &served{}
	h := local.New(local.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.deny != nil && s.deny(w, r) {
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			s.gets.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.at = strings.TrimPrefix(server.URL, "http://") + "/nodes:"
	return s
}

var quick = registry.Options{Report: report.Discard{}, Retries: 2, Backoff: time.Millisecond}

func push(t testing.TB, from, to string) *registry.Pushed {
	t.Helper()
	p, err := builder.Push(t.Context(), from, to, quick)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPushPull(t *testing.T) {
	s, dir, cache := serve(t), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("d", 6*mib), make([]byte, 3*mib), noise("b", 3*mib))
	first := push(t, dir, s.at+"1")
	if first.Moved != first.Blobs || first.Blobs < 10 || first.Bytes > 14*mib {
		t.Errorf("%+v: want all blobs sent, and the disk once", first)
	}
	if again := push(t, dir, s.at+"1"); again.Moved != 0 || again.Reference != first.Reference {
		t.Errorf("pushed again, %+v: want nothing sent", again)
	}
	for _, reference := range []string{s.at + "1", first.Reference} {
		out := t.TempDir()
		if _, err := builder.Pull(t.Context(), reference, registry.Wanted{}, out, cache, quick); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
			t.Error(diff)
		}
	}
	if got := int(s.gets.Load()); got != first.Blobs {
		t.Errorf("two pulls asked for %d blobs of %d", got, first.Blobs)
	}
	info, err := os.Stat(filepath.Join(dir, "worker.raw"))
	if err != nil || info.Size() != 13*mib+4 {
		t.Error(err)
	}
	// A new version: in front of what stays lies more.
	build(t, dir, "worker", "amd64", noise("c", 8192), noise("d", 6*mib), make([]byte, 3*mib), noise("b", 3*mib))
	if next := push(t, dir, s.at+"2"); next.Moved == 0 || next.MovedSize > next.Bytes/2 {
		t.Errorf("of a new version, which has 8 KiB more, %d bytes of %d were sent", next.MovedSize, next.Bytes)
	}
}

// TestPullGoesOn has a registry fail after some blobs: the next pull asks for the others alone.
func TestPullGoesOn(t *testing.T) {
	s, dir, out, cache := serve(t), t.TempDir(), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("a", 6*mib))
	all := push(t, dir, s.at+"1").Blobs
	s.deny = func(w http.ResponseWriter, r *http.Request) bool {
		if s.gets.Load() < 5 || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	_, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, cache, quick)
	if fault.KindOf(err) != fault.Fetch || len(read(t, out)) > 0 {
		t.Fatalf("%v; left: %v", err, read(t, out))
	}
	had, before := len(read(t, filepath.Join(cache, "blobs"))), s.gets.Load() // one that the failure of another cut off is asked for anew
	s.deny = nil
	if _, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, cache, quick); err != nil {
		t.Fatal(err)
	}
	if got := int(s.gets.Load() - before); had == 0 || got != all-had {
		t.Errorf("%d blobs were asked for, of %d of which %d were there", got, all, had)
	}
}

func TestSideBySide(t *testing.T) {
	s := serve(t)
	dirs := map[string]string{}
	for _, b := range []string{"master amd64", "worker amd64", "worker arm64"} {
		role, arch, _ := strings.Cut(b, " ")
		dirs[b] = t.TempDir()
		build(t, dirs[b], role, arch, noise(b, 100_000))
		push(t, dirs[b], s.at+"1")
	}
	pull := func(out string, want registry.Wanted) ([]registry.Pulled, error) {
		return builder.Pull(t.Context(), s.at+"1", want, out, t.TempDir(), quick)
	}
	for b, dir := range dirs {
		role, arch, _ := strings.Cut(b, " ")
		out := t.TempDir()
		if _, err := pull(out, registry.Wanted{Role: role, Arch: arch}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
			t.Error(b, diff)
		}
	}
	if got, err := pull(t.TempDir(), registry.Wanted{Arch: "amd64"}); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
	out := t.TempDir()
	if _, err := pull(out, registry.Wanted{Role: "worker", Arch: "arm64", Formats: []string{"vhd"}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(out, "worker.raw")); err == nil || len(read(t, out)) != 7 {
		t.Error(read(t, out))
	}
	for want, w := range map[string]registry.Wanted{"by --role or --arch": {Role: "worker"}, "there is master/amd64 worker/amd64 worker/arm64": {Arch: "riscv64"}, "no output in such a format": {Role: "master", Formats: []string{"ova"}}} {
		if _, err := pull(t.TempDir(), w); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Usage {
			t.Errorf("%+v: %v, want %q", w, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(out, "imgbuild.lock"), []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pull(out, registry.Wanted{Role: "master"}); err == nil || !strings.Contains(err.Error(), "has another imgbuild.lock") {
		t.Error(err)
	}
}

func TestPushOne(t *testing.T) {
	s, dir, out := serve(t), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("a", 100_000))
	push(t, filepath.Join(dir, "worker.raw"), s.at+"1")
	if _, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, t.TempDir(), quick); err != nil {
		t.Fatal(err)
	}
	want := read(t, dir)
	delete(want, "worker.vhd")
	delete(want, "worker.vhd.sig")
	if diff := cmp.Diff(want, read(t, out)); diff != "" {
		t.Error(diff)
	}
}

// TestPushRefuses what is not as it was built, and places that are not for it.
func TestPushRefuses(t *testing.T) {
	change := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	listed := `{"role":"worker","arch":"amd64","join":"join-url","outputs":[],"documents":[]}`
	for name, c := range map[string]struct {
		change   func(t *testing.T, dir string)
		from, to string
		want     string
		kind     fault.Kind
	}{
		"a stamped image":   {change("worker.raw", "boot and a token"), "", "1", "a stamped or changed image is not pushed", fault.Verify},
		"a changed bill":    {change("worker.spdx.json", "{}"), "", "1", "its manifest says", fault.Verify},
		"a bad manifest":    {change("worker.manifest.json", "{"), "", "1", "worker.manifest.json: unexpected end", fault.Verify},
		"a token":           {change("worker.manifest.json", listed), "", "1", "--join-url", fault.Usage},
		"no output":         {func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "worker.vhd")) }, "", "1", "which is not there", fault.Usage},
		"no build":          {func(t *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, "worker.manifest.json")) }, "", "1", "build it first", fault.Usage},
		"nothing":           {nil, "none", "1", "no such file", fault.Usage},
		"what is no output": {nil, "worker.spdx.json", "1", "no manifest", fault.Usage},
		"to a digest":       {nil, "", "@" + digest(nil), "push to a tag", fault.Usage},
		"to no tag":         {nil, "", "", "with a tag or digest", fault.Usage},
		"with a password":   {nil, "", "me:hunter2@", "sign in first", fault.Usage},
		"by a URL":          {nil, "", "https://me:hunter2@", "sign in first", fault.Usage},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := serve(t), t.TempDir()
			s.deny = func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet {
					t.Errorf("%s %s", r.Method, r.URL)
				}
				return false
			}
			build(t, dir, "worker", "amd64", noise("a", 100_000))
			if c.change != nil {
				c.change(t, dir)
			}
			to := s.at + c.to
			if strings.HasPrefix(c.to, "@") {
				to = strings.TrimSuffix(s.at, ":") + c.to
			}
			if strings.HasSuffix(c.to, "hunter2@") {
				to = c.to + s.at + "1"
			}
			_, err := builder.Push(t.Context(), filepath.Join(dir, c.from), to, quick)
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%s), want one with %q (%s)", err, fault.KindOf(err), c.want, c.kind)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the password is told")
			}
		})
	}
}

// TestPushToATagInUse leaves alone what is not ours.
func TestPushToATagInUse(t *testing.T) {
	s, dir := serve(t), t.TempDir()
	build(t, dir, "worker", "amd64", noise("a", 100_000))
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	host, _, _ := strings.Cut(s.at, "/")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/nodes/manifests/1", strings.NewReader(index))
	req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	if _, err := builder.Push(t.Context(), dir, s.at+"1", quick); err == nil || !strings.Contains(err.Error(), "choose another tag") || fault.KindOf(err) != fault.Usage {
		t.Error(err)
	}
}

// TestBusy has a registry refuse the first try of every request.
func TestBusy(t *testing.T) {
	s, dir, out := serve(t), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("a", 3*mib))
	var mu sync.Mutex
	asked := map[string]int{}
	codes := []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusInternalServerError}
	s.deny = func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + r.URL.String()
		if asked[key]++; asked[key] > 1 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(codes[len(asked)%len(codes)])
		return true
	}
	push(t, dir, s.at+"1")
	if _, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, t.TempDir(), quick); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(read(t, dir), read(t, out)); diff != "" {
		t.Error(diff)
	}
}

// TestHolesStay: a pulled disk has the holes of the one that was pushed.
func TestHolesStay(t *testing.T) {
	s, dir, out := serve(t), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", make([]byte, 64*mib), []byte("end"))
	if p := push(t, filepath.Join(dir, "worker.raw"), s.at+"1"); p.Bytes > 100_000 {
		t.Errorf("%d bytes travel", p.Bytes)
	}
	if _, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, t.TempDir(), quick); err != nil {
		t.Fatal(err)
	}
	if used := blocks(t, filepath.Join(out, "worker.raw")); used > mib {
		t.Errorf("it takes %d bytes", used)
	}
}

// TestOutFolder: what is no file in the folder stays, and nothing else is written.
func TestOutFolder(t *testing.T) {
	s, dir, out := serve(t), t.TempDir(), t.TempDir()
	build(t, dir, "worker", "amd64", noise("a", 100_000))
	push(t, dir, s.at+"1")
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"worker.raw", "worker.manifest.json", "worker.raw.sig"} {
		link := filepath.Join(out, name)
		if err := os.Symlink(other, link); err != nil {
			t.Fatal(err)
		}
		_, err := builder.Pull(t.Context(), s.at+"1", registry.Wanted{}, out, t.TempDir(), quick)
		if err == nil || !strings.Contains(err.Error(), name+" is no regular file") || fault.KindOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
		if text, err := os.ReadFile(other); err != nil || string(text) != "mine" || len(read(t, out)) != 1 {
			t.Errorf("%s: %q, %v, %v", name, text, err, read(t, out))
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
}

func blocks(t *testing.T, file string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(file, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}
