package source

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// madeDeb writes a package of these files and returns it with its pin.
func madeDeb(t *testing.T, name, version string, files map[string]string) (lock.Pin, string) {
	t.Helper()
	pack := func(files map[string]string) string {
		var b strings.Builder
		w := tar.NewWriter(&b)
		for _, at := range slices.Sorted(maps.Keys(files)) {
			_ = w.WriteHeader(&tar.Header{Name: "./" + at, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[at]))})
			_, _ = io.WriteString(w, files[at])
		}
		_ = w.Close()
		return b.String()
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nDescription: of a test\n", name, version)
	text := "!<arch>\n"
	for _, m := range [][2]string{{"debian-binary", "2.0\n"}, {"control.tar", pack(map[string]string{"control": control})}, {"data.tar", pack(files)}} {
		text += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n", m[0], 0, 0, 0, "100644", len(m[1])) + m[1]
	}
	file := filepath.Join(t.TempDir(), name+".deb")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return lock.Pin{Name: name, Version: version, Arch: "amd64", Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text)))}, file
}

// least is a base of two packages.
func leastBase(t *testing.T) (pins []lock.Pin, file func(lock.Pin) (string, error)) {
	files := map[string]string{}
	for name, content := range map[string]map[string]string{
		"base-passwd": {"usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n", "usr/share/base-passwd/group.master": "root:*:0:\n"},
		"hello":       {"usr/bin/hello": "hello", "usr/share/man/man1/hello.1.gz": "left out"},
	} {
		pin, file := madeDeb(t, name, "1-1", content)
		pins, files[name] = append(pins, pin), file
	}
	return pins, func(p lock.Pin) (string, error) { return files[p.Name], nil }
}

func TestLay(t *testing.T) {
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pins, file := leastBase(t)
	layers, err := DebianBase{Name: "debian-trixie"}.Lay(context.Background(), s, pins, file)
	if err != nil || len(layers) != 3 {
		t.Fatal(layers, err)
	}
	u := tree.New()
	for _, l := range layers {
		if err := u.ApplyTar(l); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[string]string{"etc/passwd": "root:*:0:0:root:/root:/bin/bash\n", "usr/bin/hello": "hello", "var/lib/dpkg/arch": "amd64\n",
		"var/lib/dpkg/info/hello.list": "/usr/bin/hello\n/usr/share/man/man1/hello.1.gz\n"} {
		if text, err := u.ReadFile(at); string(text) != want {
			t.Errorf("%s: %q, %v", at, text, err)
		}
	}
	if _, ok := u.Get("usr/share/man/man1/hello.1.gz"); ok {
		t.Error("a manual is there")
	}
	status, _ := u.ReadFile("var/lib/dpkg/status")
	if n := strings.Count(string(status), "Status: install ok installed\n"); n != 2 {
		t.Errorf("%d packages are installed: %s", n, status)
	}
	// What the store keeps needs no package; the order of the pins is nothing to it.
	slices.Reverse(pins)
	again, err := DebianBase{Name: "debian-trixie"}.Lay(context.Background(), s, pins, func(lock.Pin) (string, error) { return "", errors.New("asked for") })
	if err != nil || !slices.Equal(again, layers) || !kept(s, pins) {
		t.Error(again, err)
	}
}

// keptBase is a least base whose layers are in the store, and a server that has its packages.
func keptBase(t *testing.T) (o Options, dir string, pins []lock.Pin) {
	dir = t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pins, file := leastBase(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _ := file(lock.Pin{Name: path.Base(r.URL.Path)})
		http.ServeFile(w, r, name)
	}))
	t.Cleanup(server.Close)
	for i := range pins {
		pins[i].Request, pins[i].Kind, pins[i].Source, pins[i].URL = "debian-trixie", lock.KindBase, "debian", server.URL+"/"+pins[i].Name
	}
	o = Options{Arch: "amd64", Store: s, Report: report.Discard{}}
	if _, err := New(o).Base(t.Context(), pins); err != nil {
		t.Fatal(err)
	}
	return o, dir, pins
}

// TestPackagesLiveAsLongAsTheirLayers: what is in use can be laid out anew without a network.
func TestPackagesLiveAsLongAsTheirLayers(t *testing.T) {
	o, dir, pins := keptBase(t)
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs/*"))
	if err != nil || len(blobs) != 5 {
		t.Fatal(blobs, err)
	}
	for _, b := range blobs {
		if err := os.Chtimes(b, time.Now().Add(-48*time.Hour), time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	o.Offline = true
	if _, err := New(o).Base(t.Context(), pins); err != nil {
		t.Fatal(err)
	}
	if gone, err := o.Store.Prune(time.Now().Add(-24 * time.Hour)); err != nil || len(gone) != 0 {
		t.Errorf("%v, %v", gone, err)
	}
}

// TestDamagedLayer: its package is fetched anew where it is gone, and without a network the error says so.
func TestDamagedLayer(t *testing.T) {
	o, dir, pins := keptBase(t)
	for _, key := range []string{layerKey(pins[0]), laying{pins: bySize(pins)}.topKey()} {
		for _, offline := range []bool{true, false} {
			digest, ok := o.Store.Lookup(key)
			if !ok {
				t.Fatal(key)
			}
			blob := filepath.Join(dir, "blobs", strings.TrimPrefix(digest, "sha256:"))
			if err := errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, []byte("damaged"), 0o600), os.Remove(filepath.Join(dir, "blobs", strings.TrimPrefix(pins[0].Digest, "sha256:")))); err != nil {
				t.Fatal(err)
			}
			o.Offline = offline
			if _, err := New(o).Base(t.Context(), pins); offline != errors.Is(err, fetch.ErrOffline) || !offline && err != nil {
				t.Errorf("%s, offline %v: %v", key, offline, err)
			}
			if !offline {
				continue
			}
			o.Offline = false // for the next round all is there
			if _, err := New(o).Base(t.Context(), pins); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLayRefusesAnotherPackageThanPinned(t *testing.T) {
	for name, change := range map[string]func(*lock.Pin){
		"another name":    func(p *lock.Pin) { p.Name = "goodbye" },
		"another version": func(p *lock.Pin) { p.Version = "1-2" },
		"another machine": func(p *lock.Pin) { p.Arch = "arm64" },
	} {
		s, err := store.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		pins, file := leastBase(t)
		i := slices.IndexFunc(pins, func(p lock.Pin) bool { return p.Name == "hello" })
		for _, kept := range []bool{false, true} { // the layer is in the store: the lock lies all the same
			if kept {
				if _, err := (DebianBase{}).Lay(context.Background(), s, pins, file); err != nil {
					t.Fatal(err)
				}
			}
			wrong := slices.Clone(pins)
			change(&wrong[i])
			_, err = DebianBase{}.Lay(context.Background(), s, wrong, func(p lock.Pin) (string, error) {
				if p.Digest == pins[i].Digest {
					p.Name = "hello"
				}
				return file(p)
			})
			if fault.KindOf(err) != fault.Lock || !strings.Contains(err.Error(), "and the lock pins") {
				t.Errorf("%s, kept %v: %v", name, kept, err)
			}
		}
	}
}
