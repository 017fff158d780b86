package store_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/store"
)

const helloDigest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

func open(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func put(t *testing.T, s *store.Store, text string) string {
	t.Helper()
	digest, size, err := s.Put(t.Context(), strings.NewReader(text))
	if err != nil || size != int64(len(text)) {
		t.Fatalf("Put(%q) = size %d, %v", text, size, err)
	}
	return digest
}

func TestPutThenGetGivesTheSameBytes(t *testing.T) {
	s, _ := open(t)
	digest := put(t, s, "hello")
	if digest != helloDigest {
		t.Errorf("digest %s, want that of sha256sum: %s", digest, helloDigest)
	}
	path, err := s.Get(digest)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if diff := cmp.Diff("hello", string(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestGetRefuses(t *testing.T) {
	s, dir := open(t)
	damaged := put(t, s, "hello")
	blob := filepath.Join(dir, "blobs", strings.TrimPrefix(damaged, "sha256:"))
	if err := errors.Join(os.Chmod(blob, 0o644), os.WriteFile(blob, []byte("jello"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		digest string
		want   error
	}{
		"a blob with a flipped byte": {damaged, store.ErrDamaged},
		"a blob that is not there":   {"sha256:" + strings.Repeat("0", 64), fs.ErrNotExist},
		"a path for a digest":        {"sha256:../../../etc/passwd", fs.ErrInvalid},
		"another algorithm":          {"md5:d41d8cd98f00b204e9800998ecf8427e", fs.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if path, err := s.Get(test.digest); !errors.Is(err, test.want) {
				t.Errorf("Get = %q, %v; want %v", path, err, test.want)
			}
		})
	}
	if _, err := os.Stat(blob); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damaged blob is still there: %v", err)
	}
}

func TestAFailedPutLeavesNothing(t *testing.T) {
	s, dir := open(t)
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("cable pulled")))
	if _, _, err := s.Put(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "cable pulled") {
		t.Errorf("Put = %v", err)
	}
	for _, sub := range []string{"blobs", "tmp"} {
		if left, _ := os.ReadDir(filepath.Join(dir, sub)); len(left) > 0 {
			t.Errorf("%s still holds %v", sub, left)
		}
	}
}

func TestOnceWorksOnceForManyCallers(t *testing.T) {
	_, dir := open(t)
	var ran atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := store.Open(dir) // a store each, as processes have
			if err != nil {
				t.Error(err)
				return
			}
			path, err := s.Once(t.Context(), "build it", func(ctx context.Context) (string, error) {
				ran.Add(1)
				time.Sleep(20 * time.Millisecond)
				digest, _, err := s.Put(ctx, strings.NewReader("hello"))
				return digest, err
			})
			if err != nil || filepath.Base(path) != strings.TrimPrefix(helloDigest, "sha256:") {
				t.Errorf("Once = %q, %v", path, err)
			}
		})
	}
	wg.Wait()
	if ran.Load() != 1 {
		t.Errorf("the work was done %d times", ran.Load())
	}
}

func TestOnceWorksAgain(t *testing.T) {
	s, dir := open(t)
	work := func(ctx context.Context) (string, error) {
		digest, _, err := s.Put(ctx, strings.NewReader("hello"))
		return digest, err
	}
	if _, err := s.Once(t.Context(), "k", func(context.Context) (string, error) { return "", errors.New("no luck") }); err == nil {
		t.Error("the first error was swallowed")
	}
	path, err := s.Once(t.Context(), "k", work)
	if err != nil {
		t.Fatalf("after an error: %v", err)
	}
	if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, []byte("jel"), 0o644)); err != nil {
		t.Fatal(err)
	}
	s, _ = store.Open(dir)
	path, err = s.Once(t.Context(), "k", work)
	if err != nil {
		t.Fatalf("after damage: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "hello" {
		t.Errorf("after damage the blob holds %q", got)
	}
}

func TestLockGivesWayToTheContext(t *testing.T) {
	s, _ := open(t)
	unlock, err := s.Lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Lock = %v", err)
	}
	unlock()
	if unlock, err = s.Lock(t.Context(), "k"); err != nil {
		t.Errorf("after unlock: %v", err)
	} else {
		unlock()
	}
}

func TestRecordNeedsTheBlob(t *testing.T) {
	s, _ := open(t)
	if err := s.Record("k", helloDigest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Record = %v", err)
	}
	if digest, ok := s.Lookup("k"); ok {
		t.Errorf("Lookup = %s", digest)
	}
}

func TestDefaultDirFollowsXDG(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	for set, want := range map[string]string{
		"/fast/cache": "/fast/cache/imgbuild",
		"":            "/home/someone/.cache/imgbuild",
		"not/abs":     "/home/someone/.cache/imgbuild",
	} {
		t.Setenv("XDG_CACHE_HOME", set)
		if got, err := store.DefaultDir(); got != want || err != nil {
			t.Errorf("XDG_CACHE_HOME=%q: %q, %v; want %q", set, got, err, want)
		}
	}
}

func TestOldTemporaryFilesAreSweptYoungOnesStay(t *testing.T) {
	_, dir := open(t)
	old, young := filepath.Join(dir, "tmp", "blob-old"), filepath.Join(dir, "tmp", "blob-young")
	long := time.Now().Add(-48 * time.Hour)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(young, nil, 0o600), os.Chtimes(old, long, long)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	if diff := cmp.Diff([]string{young}, left); diff != "" {
		t.Error(diff)
	}
}
