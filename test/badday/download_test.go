package badday

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestDownloads puts a proxy in front of the packages that gives one of them in
// every bad way. What fails says so with exit code 6 and files nothing.
func TestDownloads(t *testing.T) {
	const name = "a package that comes wrong, short, late, elsewhere or not at all"
	want := good(t)
	victim, text := aPackage(t)
	cache := ownCache(t)
	blob := filepath.Join(cache, "blobs", strings.TrimPrefix(victim.Digest, "sha256:"))
	ways := badWays(victim.URL, text)
	for _, way := range ways[:times(4, len(ways))] {
		if err := errors.Join(os.Remove(blob), tools.Forget(t.Context(), cache, "base ")); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int64
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if path.Base(r.URL.Path) != path.Base(victim.URL) && !strings.HasSuffix(victim.URL, r.URL.EscapedPath()) {
				http.Error(w, "nothing else is missing", http.StatusTeapot)
				return
			}
			if n := asked.Add(1); way.from > 0 && n >= way.from {
				send(w, len(text), text)
			} else {
				way.give(w, n)
			}
		}))
		var words strings.Builder
		out := t.TempDir()
		err := run.Run(t.Context(), run.Cmd{Name: filepath.Join(tools.Bin, "imgbuild"), Args: []string{"worker", "-o", out, "--lock", lockFile(), "--format", "raw", "--cache", cache},
			Stderr: &words, Quiet: true, Env: []string{"http_proxy=" + proxy.URL, "HTTP_PROXY=" + proxy.URL}})
		proxy.CloseClientConnections()
		proxy.Close()
		sum, _ := digest(filepath.Join(out, "worker.raw"))
		_, filed := os.Stat(blob)
		if way.from > 0 {
			held(t, name, err == nil && sum == want && asked.Load() == way.from, "%s: %v after %d tries: %s", way.name, err, asked.Load(), words.String())
			continue
		}
		said := complaint(words.String())
		held(t, name, exitCode(err) == 6 && sum == "" && filed != nil && len(left(t, out)) == 0 && strings.Contains(said, path.Base(victim.URL)),
			"%s: %v after %d tries, filed: %v: %s", way.name, err, asked.Load(), filed == nil, said)
		if err := os.WriteFile(blob, text, 0o444); err != nil { // for the next way to take away
			t.Fatal(err)
		}
	}
}

// way is one way to be given a file.
type way struct {
	name string
	from int64 // the try that is answered well, or 0
	give func(w http.ResponseWriter, n int64)
}

func send(w http.ResponseWriter, length int, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(length))
	_, _ = w.Write(body) // the client may be gone
}

// badWays are the ways in which the bytes of url may come.
func badWays(url string, text []byte) []way {
	status := func(code int) func(w http.ResponseWriter, n int64) {
		return func(w http.ResponseWriter, n int64) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "busy", code)
		}
	}
	return []way{
		{"another byte", 0, func(w http.ResponseWriter, _ int64) {
			bad := slices.Clone(text)
			bad[len(bad)/2] ^= 1
			send(w, len(bad), bad)
		}},
		{"429 twice", 3, status(http.StatusTooManyRequests)},
		{"a page instead of the file", 0, func(w http.ResponseWriter, _ int64) {
			_, _ = io.WriteString(w, "<html>Log in to the hotel's network</html>")
		}},
		{"not there", 0, status(http.StatusNotFound)},
		{"broken off twice", 3, func(w http.ResponseWriter, _ int64) { send(w, len(text), text[:len(text)/2]) }},
		{"another length", 0, func(w http.ResponseWriter, _ int64) { send(w, len(text)-1, text[:len(text)-1]) }},
		{"a flood", 0, func(w http.ResponseWriter, _ int64) {
			for range 100 {
				_, _ = w.Write(text)
			}
		}},
		{"503 twice", 3, status(http.StatusServiceUnavailable)},
		{"500 for ever", 0, status(http.StatusInternalServerError)},
		{"broken off for ever", 0, func(w http.ResponseWriter, _ int64) { send(w, len(text), text[:len(text)/2]) }},
		{"elsewhere", 2, func(w http.ResponseWriter, _ int64) {
			w.Header().Set("Location", url+"?again")
			w.WriteHeader(http.StatusFound)
		}},
		{"elsewhere for ever", 0, func(w http.ResponseWriter, n int64) {
			w.Header().Set("Location", fmt.Sprintf("%s?%d", url, n))
			w.WriteHeader(http.StatusFound)
		}},
		{"stalled once", 2, func(w http.ResponseWriter, _ int64) {
			send(w, len(text), text[:len(text)/2])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(40 * time.Second) // longer than the client waits
		}},
	}
}

// aPackage is one package of the worker's base and its bytes.
func aPackage(t *testing.T) (lock.Pin, []byte) {
	t.Helper()
	data, err := os.ReadFile(lockFile())
	if err != nil {
		t.Fatal(err)
	}
	var pins lock.File
	if err := json.Unmarshal(data, &pins); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pins.Nodes["worker"].Pins, func(p lock.Pin) bool { return p.Name == "diffutils" })
	cache, err := os.UserCacheDir()
	if err != nil || i < 0 {
		t.Fatal(i, err)
	}
	victim := pins.Nodes["worker"].Pins[i]
	text, err := os.ReadFile(filepath.Join(cache, "imgbuild", "blobs", strings.TrimPrefix(victim.Digest, "sha256:")))
	if err != nil {
		t.Fatal(err)
	}
	return victim, text
}
