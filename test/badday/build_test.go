package badday

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
)

// TestKilled kills a build, as a power cut would, at random times of its life.
func TestKilled(t *testing.T) {
	const name = "kill -9 of a build at a random time"
	want := good(t)
	start := time.Now()
	if _, err := build(t.Context(), filepath.Join(folder, "whole"), ""); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	_ = os.RemoveAll(filepath.Join(folder, "whole"))
	r := rand.New(rand.NewPCG(20261123, 1))
	for range times(4, 100) {
		out := t.TempDir()
		after := time.Duration(r.Int64N(int64(whole)))
		// timeout(1) sends the signal to imgbuild alone, as the kernel would when memory ends.
		_ = run.Run(t.Context(), run.Cmd{Name: "timeout", Args: []string{"--foreground", "-s", "KILL", fmt.Sprintf("%.3f", after.Seconds()),
			filepath.Join(tools.Bin, "imgbuild"), "worker", "-o", out, "--lock", lockFile(), "--format", "raw"}})
		_, whole := os.Stat(filepath.Join(out, "worker.manifest.json"))
		if _, err := os.Stat(filepath.Join(out, "worker.raw")); err == nil && whole == nil {
			if sum, _ := digest(filepath.Join(out, "worker.raw")); sum != want {
				t.Errorf("killed after %s: another image lies under its final name", after)
			}
		}
		said, err := build(t.Context(), out, "")
		sum, _ := digest(filepath.Join(out, "worker.raw"))
		held(t, name, err == nil && sum == want && len(left(t, out)) == 0, "killed after %s: then %v, sha256 %s, left %v\n%s", after, err, sum, left(t, out), said)
		_ = os.RemoveAll(out)
	}
}

// TestNoSpace gives the outputs, then the cache, a file system that is too small.
func TestNoSpace(t *testing.T) {
	const name = "no space left, for outputs or for the cache"
	want := good(t)
	if err := run.Run(t.Context(), run.Cmd{Name: "unshare", Args: []string{"--mount", "--map-root-user", "true"}}); err != nil {
		t.Skipf("this host gives ordinary users no name space to mount in: %v", err)
	}
	const script = `mount -t tmpfs -o size="$1" none "$2" && shift 2 && "$@"; code=$?
test $code != 0 || sha256sum "$OUT/worker.raw"; ls -A "$OUT" | grep -v '^imgbuild.lock$' | sed 's/^/left: /'; exit $code`
	n := times(4, 20)
	for i := range n {
		out, size := t.TempDir(), int64(600)<<20*int64(i)/int64(n)+4096
		args := []string{"--mount", "--map-root-user", "sh", "-c", script, "sh", fmt.Sprint(size), out, filepath.Join(tools.Bin, "imgbuild"), "worker", "-o", out, "--lock", lockFile(), "--format", "raw"}
		var said strings.Builder
		shown, err := run.Output(t.Context(), run.Cmd{Name: "unshare", Args: args, Stderr: &said, Quiet: true, Env: []string{"OUT=" + out}})
		held(t, name, err != nil && strings.Contains(complaint(said.String()), "no space left on device") && !strings.Contains(string(shown), "left:"),
			"%d bytes for the outputs: %v: %s\n%s", size, err, complaint(said.String()), shown)
	}
	// A cache that is full as soon as something is to be filed.
	cache, out := t.TempDir(), t.TempDir()
	args := []string{"--mount", "--map-root-user", "sh", "-c", script, "sh", "4194304", cache, filepath.Join(tools.Bin, "imgbuild"), "worker", "-o", out, "--lock", lockFile(), "--format", "raw", "--cache", cache}
	var said strings.Builder
	shown, err := run.Output(t.Context(), run.Cmd{Name: "unshare", Args: args, Stderr: &said, Quiet: true, Env: []string{"OUT=" + out}})
	held(t, name, err != nil && strings.Contains(complaint(said.String()), "no space left on device") && !strings.Contains(string(shown), "left:"),
		"a full cache: %v: %s\n%s", err, complaint(said.String()), shown)
	if _, err := build(t.Context(), out, ""); err != nil {
		t.Fatal(err)
	}
	sum, _ := digest(filepath.Join(out, "worker.raw"))
	held(t, name, sum == want, "with space the image is %s, was %s", sum, want)
}

// TestDamagedCache damages one entry of each kind that a build uses, in each way.
func TestDamagedCache(t *testing.T) {
	const name = "a cache entry corrupt, short, empty, gone or unreadable"
	want := good(t)
	ways := map[string]func(file string, text []byte) error{
		"corrupt": func(f string, b []byte) error { b[len(b)/2] ^= 1; return os.WriteFile(f, b, 0o644) },
		"short":   func(f string, b []byte) error { return os.WriteFile(f, b[:len(b)/2], 0o644) },
		"empty":   func(f string, _ []byte) error { return os.WriteFile(f, nil, 0o644) },
		"gone":    func(string, []byte) error { return nil },
		"longer":  func(f string, b []byte) error { return os.WriteFile(f, append(b, 'x'), 0o644) },
	}
	cache := ownCache(t)
	r := rand.New(rand.NewPCG(20261123, 2))
	for kind, files := range inUse(t, cache) {
		if len(files) == 0 {
			t.Fatalf("a build uses no %s", kind)
		}
		for way, damage := range ways {
			for range times(1, 10) {
				hit := files[r.IntN(len(files))]
				info, err := os.Stat(hit)
				if err != nil || info.Size() > 300<<20 || info.Size() == 0 {
					continue // gone already, or so large that it is the host that is tested
				}
				text, err := os.ReadFile(hit)
				if err != nil {
					t.Fatal(err)
				}
				_ = os.Remove(hit) // the other name of a hard link stays as it is
				if err := damage(hit, text); err != nil {
					t.Fatal(err)
				}
				out := t.TempDir()
				said, err := build(t.Context(), out, cache)
				sum, _ := digest(filepath.Join(out, "worker.raw"))
				clear := exitCode(err) > 0 && strings.HasPrefix(complaint(said), "imgbuild: ") && len(left(t, out)) == 0 && sum == ""
				held(t, name, err == nil && sum == want || clear, "%s of %s: %v, sha256 %s: %s", way, kind, err, sum, complaint(said))
				_ = os.RemoveAll(out)
			}
		}
	}
}

// TestRottenCache has the disk return other bytes of the largest entry than were written,
// which nothing but the bytes tells.
func TestRottenCache(t *testing.T) {
	const name = "a cache entry that rots on the disk"
	want, cache, largest, size := good(t), ownCache(t), "", int64(0)
	for _, file := range inUse(t, cache)["blobs"] {
		if info, err := os.Stat(file); err == nil && info.Size() > size {
			largest, size = file, info.Size()
		}
	}
	text, err := os.ReadFile(largest)
	if err == nil {
		text[len(text)/2] ^= 1
		_ = os.Remove(largest) // the other name of a hard link stays as it is
		err = os.WriteFile(largest, text, 0o644)
	}
	s, err2 := store.Open(cache)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if err := s.Vouch(largest, "sound"); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	said, err := build(t.Context(), out, cache)
	held(t, name, err != nil && strings.Contains(complaint(said), "cache: sha256:"+filepath.Base(largest)+" is damaged") && len(left(t, out)) == 0, "%v: %s", err, said)
	said, err = build(t.Context(), out, cache)
	sum, _ := digest(filepath.Join(out, "worker.raw"))
	held(t, name, err == nil && sum == want, "then %v, sha256 %s: %s", err, sum, said)
}

// inUse are the entries of the cache that a build uses, by kind: the store notes
// a blob's use in its access time, where the last one is some time ago.
func inUse(t *testing.T, cache string) map[string][]string {
	t.Helper()
	start, out := time.Now(), t.TempDir()
	blobs, err := filepath.Glob(filepath.Join(cache, "blobs", "*"))
	for _, file := range blobs {
		err = errors.Join(err, os.Chtimes(file, start.Add(-2*time.Hour), time.Time{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	if said, err := build(t.Context(), out, cache); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	found, used := map[string][]string{}, map[string]bool{}
	for _, kind := range []string{"blobs", "actions", "notes"} {
		files, err := filepath.Glob(filepath.Join(cache, kind, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			switch kind {
			case "blobs":
				var s unix.Stat_t
				if err := unix.Stat(file, &s); err != nil {
					t.Fatal(err)
				}
				if used[filepath.Base(file)] = !time.Unix(s.Atim.Unix()).Before(start); !used[filepath.Base(file)] {
					continue
				}
			case "actions":
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if digest, _, _ := strings.Cut(string(text), "\n"); !used[strings.TrimPrefix(digest, "sha256:")] {
					continue
				}
			}
			found[kind] = append(found[kind], file)
		}
	}
	return found
}

// TestCrowd builds side by side.
func TestCrowd(t *testing.T) {
	const name = "eight builds at once on one cache"
	want := good(t)
	for range times(1, 20) {
		var group sync.WaitGroup
		dir, crowd := t.TempDir(), times(3, 8)
		for i := range crowd {
			group.Add(1)
			go func() {
				defer group.Done()
				out := filepath.Join(dir, fmt.Sprint(i%(crowd-1))) // two of them in one folder
				said, err := build(context.WithoutCancel(t.Context()), out, "")
				sum, _ := digest(filepath.Join(out, "worker.raw"))
				held(t, name, err == nil && sum == want, "build %d: %v, sha256 %s\n%s", i, err, sum, said)
			}()
		}
		group.Wait()
		_ = os.RemoveAll(dir)
	}
}
