package fetch_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/store"
)

const text = "the bytes that were asked for"

func digest(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func client(t *testing.T, o fetch.Options) (*fetch.Client, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Backoff = time.Millisecond
	if o.Stall == 0 {
		o.Stall = 200 * time.Millisecond
	}
	return fetch.New(s, o), dir
}

// faults is a server with one path for each way of going wrong. Paths under
// /twice/ go wrong twice and then work.
func faults(t *testing.T) (base string, hits *atomic.Int32) {
	t.Helper()
	hits = new(atomic.Int32)
	quit := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := hits.Add(1)
		name, often := strings.CutPrefix(r.URL.Path, "/twice")
		if often && n > 2 {
			name = "/good"
		}
		switch name {
		case "/good":
			_, _ = w.Write([]byte(text))
		case "/busy":
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/sick":
			w.WriteHeader(http.StatusBadGateway)
		case "/forbidden":
			w.WriteHeader(http.StatusForbidden)
		case "/short":
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = w.Write([]byte(text[:5]))
		case "/stall":
			_, _ = w.Write([]byte(text[:5]))
			w.(http.Flusher).Flush()
			select {
			case <-quit:
			case <-r.Context().Done():
			}
		case "/flood":
			for range 1000 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(quit) })
	return srv.URL, hits
}

func TestGet(t *testing.T) {
	for name, test := range map[string]struct {
		path  string
		size  int64
		want  string
		tries int32
		err   error  // the sentinel
		say   string // part of the message; empty means that it works
	}{
		"good":                      {path: "/good", size: int64(len(text)), tries: 1},
		"good of unknown size":      {path: "/good", tries: 1},
		"429 twice":                 {path: "/twice/busy", tries: 3},
		"502 twice":                 {path: "/twice/sick", tries: 3},
		"body broken off twice":     {path: "/twice/short", tries: 3},
		"stall twice":               {path: "/twice/stall", tries: 3},
		"502 for ever":              {path: "/sick", tries: 3, say: "502 Bad Gateway"},
		"stall for ever":            {path: "/stall", tries: 3, say: "nothing came for 200ms"},
		"404 is final":              {path: "/gone", tries: 1, err: fetch.ErrNotFound, say: "404"},
		"403 is final":              {path: "/forbidden", tries: 1, say: "403 Forbidden"},
		"wrong digest names both":   {path: "/good", want: digest("other"), tries: 1, err: fetch.ErrMismatch, say: "got " + digest(text) + " (29 bytes), want " + digest("other")},
		"wrong length is refused":   {path: "/good", size: 7, tries: 1, err: fetch.ErrMismatch, say: "server offers 29 bytes, want 7 bytes"},
		"a flood stops at the cap":  {path: "/flood", tries: 1, err: fetch.ErrMismatch, say: "server sends more than the limit of 100000 bytes"},
		"a flood stops at the size": {path: "/flood", size: 29, tries: 1, err: fetch.ErrMismatch, say: "server sends more than 29 bytes"},
		"no digest":                 {path: "/good", want: "none", err: os.ErrInvalid, say: "is no digest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, hits := faults(t)
			c, dir := client(t, fetch.Options{Retries: 2, MaxSize: 100000})
			want := test.want
			if want == "" {
				want = digest(text)
			}
			path, err := c.Get(t.Context(), fetch.Item{URL: base + test.path, Size: test.size, SHA256: want})
			if hits.Load() != test.tries {
				t.Errorf("asked %d times, want %d", hits.Load(), test.tries)
			}
			if test.say == "" {
				if got, _ := os.ReadFile(path); string(got) != text || err != nil {
					t.Errorf("Get = %q, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.say) || (test.err != nil && !errors.Is(err, test.err)) {
				t.Errorf("error %v; want %v with %q", err, test.err, test.say)
			}
			for _, sub := range []string{"blobs", "tmp"} {
				if left, _ := os.ReadDir(filepath.Join(dir, sub)); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
		})
	}
}

func TestGetTwiceDownloadsOnce(t *testing.T) {
	base, hits := faults(t)
	c, _ := client(t, fetch.Options{})
	for range 2 {
		if _, err := c.Get(t.Context(), fetch.Item{URL: base + "/good", SHA256: digest(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if hits.Load() != 1 {
		t.Errorf("asked %d times", hits.Load())
	}
}

func TestAllKeepsTheOrderAndCounts(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.URL.Path)) }))
	t.Cleanup(srv.Close)
	var last atomic.Int64
	c, _ := client(t, fetch.Options{Parallel: 3, Progress: func(done, total int64) {
		if done == total {
			last.Store(done)
		}
	}})
	var items []fetch.Item
	for i := range 20 {
		p := fmt.Sprintf("/item-%02d", i)
		items = append(items, fetch.Item{URL: srv.URL + p, Size: int64(len(p)), SHA256: digest(p)})
	}
	paths, err := c.All(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		if got, _ := os.ReadFile(path); string(got) != fmt.Sprintf("/item-%02d", i) {
			t.Errorf("item %d is %q", i, got)
		}
	}
	if last.Load() != 20*8 {
		t.Errorf("progress ended at %d", last.Load())
	}
}

// TestFiles: a file is fetched like any other address, and no server can name one.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a+b"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.RedirectHandler("file://"+dir+"/a+b", http.StatusFound))
	t.Cleanup(srv.Close)
	c, _ := client(t, fetch.Options{Retries: -1})
	for addr, is := range map[string]error{srv.URL: fetch.ErrRefused, "file://" + dir + "/gone": fetch.ErrNotFound, "file://" + dir: fetch.ErrRefused, "file://localhost" + dir + "/a+b": nil} {
		if _, err := c.Get(t.Context(), fetch.Item{URL: addr, SHA256: digest(text)}); err == nil || !errors.Is(err, is) && is != nil {
			t.Errorf("%s: %v, want %v", addr, err, is)
		}
	}
	if _, err := c.Get(t.Context(), fetch.Item{URL: "file://" + dir + "/a%2bb", Size: 1, SHA256: digest(text)}); !errors.Is(err, fetch.ErrMismatch) {
		t.Errorf("a larger file: %v", err)
	}
	if path, err := c.Get(t.Context(), fetch.Item{URL: "file://" + dir + "/a%2bb", Size: int64(len(text)), SHA256: digest(text)}); err != nil || !strings.Contains(path, digest(text)[7:]) {
		t.Errorf("%s, %v", path, err)
	}
}

// TestPartsAddUp: Parts are counted together, and one that fails leaves no trace.
func TestPartsAddUp(t *testing.T) {
	base, _ := faults(t)
	var got [][2]int64
	c, _ := client(t, fetch.Options{Retries: -1, Progress: func(done, total int64) { got = append(got, [2]int64{done, total}) }})
	size := int64(len(text))
	for i, it := range []fetch.Item{{URL: base + "/short", Size: size, SHA256: digest(text)}, {URL: base + "/gone", Size: size, SHA256: digest(text)},
		{URL: base + "/good", Size: size, SHA256: digest(text)}, {URL: base + "/good", Size: size, SHA256: digest(text)}} {
		if _, err := c.Part(t.Context(), it); (err == nil) != (i > 1) {
			t.Errorf("part %d: %v", i, err)
		}
	}
	if last := len(got) - 1; last < 0 || got[last] != [2]int64{2 * size, 2 * size} {
		t.Errorf("heard %v", got)
	}
	heard := len(got)
	if _, err := c.Get(t.Context(), fetch.Item{URL: base + "/good", Size: size, SHA256: digest(text)}); err != nil || len(got) != heard {
		t.Errorf("a Get is heard, %v", err)
	}
}

func TestErrorsCarryNoSecret(t *testing.T) {
	c, _ := client(t, fetch.Options{Retries: -1})
	for _, addr := range []string{"http://user:hunter2@127.0.0.1:1/x?sig=hunter2", "ftp://user:hunter2@host/x", "http://[hunter2"} {
		_, err := c.Get(t.Context(), fetch.Item{URL: addr, SHA256: digest(text)})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestSmall(t *testing.T) {
	base, _ := faults(t)
	c, _ := client(t, fetch.Options{})
	if got, err := c.Small(t.Context(), base+"/good", 100); string(got) != text || err != nil {
		t.Errorf("Small = %q, %v", got, err)
	}
	if _, err := c.Small(t.Context(), base+"/good", 10); !errors.Is(err, fetch.ErrMismatch) {
		t.Errorf("too long: %v", err)
	}
	if _, err := c.Small(t.Context(), base+"/none", 10); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("not there: %v", err)
	}
}
