package store_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/store"
)

func blobFile(dir, digest string) string {
	return filepath.Join(dir, "blobs", strings.TrimPrefix(digest, "sha256:"))
}

// age makes a blob look unused since then.
func age(t *testing.T, dir, digest string, since time.Time) {
	t.Helper()
	if err := os.Chtimes(blobFile(dir, digest), since, time.Time{}); err != nil {
		t.Fatal(err)
	}
}

func TestListShowsWhatIsThere(t *testing.T) {
	s, dir := open(t)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("an empty store lists %v, %v", list, err)
	}
	a, b := put(t, s, "hello"), put(t, s, "world!")
	if err := s.Record("the key", b); err != nil {
		t.Fatal(err)
	}
	age(t, dir, b, time.Now().Add(-time.Hour))
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Digest != b || list[0].Size != 6 || len(list[0].Keys) != 1 || list[0].Keys[0] != "the key" ||
		list[1].Digest != a || len(list[1].Keys) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestVerifyTakesDamagedAway(t *testing.T) {
	s, dir := open(t)
	good, bad, cut := put(t, s, "hello"), put(t, s, "world!"), put(t, s, "more")
	for digest, text := range map[string]string{bad: "World!", cut: ""} {
		if err := os.Remove(blobFile(dir, digest)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blobFile(dir, digest), []byte(text), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	sound, damaged, err := fresh.Verify(t.Context())
	if err != nil || sound != 1 || len(damaged) != 2 {
		t.Fatalf("%d sound, damaged %+v, %v", sound, damaged, err)
	}
	if _, err := os.Stat(blobFile(dir, bad)); err == nil {
		t.Error("the damaged blob is still there")
	}
	if _, err := fresh.Get(good); err != nil {
		t.Error(err)
	}
}

func TestPruneKeepsWhatIsUsed(t *testing.T) {
	s, dir := open(t)
	old, used, touched := put(t, s, "hello"), put(t, s, "world!"), put(t, s, "more")
	for key, digest := range map[string]string{"old": old, "used": used, "touched": touched} {
		if err := s.Record(key, digest); err != nil {
			t.Fatal(err)
		}
		age(t, dir, digest, time.Now().Add(-48*time.Hour))
	}
	if _, err := s.Get(used); err != nil { // counts as use
		t.Fatal(err)
	}
	s.Touch(touched)
	s.Touch("sha256:../../" + dir) // no digest: nothing happens
	gone, err := s.Prune(time.Now().Add(-24 * time.Hour))
	if err != nil || len(gone) != 1 || gone[0].Digest != old {
		t.Fatalf("%+v, %v", gone, err)
	}
	if _, ok := s.Lookup("old"); ok {
		t.Error("the record of a pruned blob still answers")
	}
	if _, ok := s.Lookup("used"); !ok {
		t.Error("a used blob is gone")
	}
	if _, ok := s.Lookup("touched"); !ok {
		t.Error("a touched blob is gone")
	}
	if files, err := os.ReadDir(filepath.Join(dir, "actions")); err != nil || len(files) != 2 {
		t.Errorf("%d records left, %v", len(files), err)
	}
}

func TestPruneTakesNotesAndLocks(t *testing.T) {
	s, dir := open(t)
	for _, key := range []string{"free", "held"} {
		unlock, err := s.Lock(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if key == "free" {
			unlock()
			continue
		}
		defer unlock()
	}
	kept := filepath.Join(t.TempDir(), "kept")
	for _, file := range []string{kept, kept + "-touched", kept + "-gone"} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Vouch(file, "the plan"); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(kept+"-touched", []byte("more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(kept + "-gone"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prune(time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"notes", "locks"} {
		if files, err := os.ReadDir(filepath.Join(dir, d)); err != nil || len(files) != 1 {
			t.Errorf("%d %s left, %v", len(files), d, err)
		}
	}
	if !s.Vouched(kept, "the plan") {
		t.Error("the note that holds is gone")
	}
	if unlock, err := s.Lock(t.Context(), "free"); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Lock(ctx, "held"); err == nil {
		t.Error("two hold one lock")
	}
}

// TestRecheck has a disk return other bytes than were written, which no change time tells.
func TestRecheck(t *testing.T) {
	s, dir := open(t)
	good, bad := put(t, s, "hello"), put(t, s, "world!")
	if err := os.Chmod(blobFile(dir, bad), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobFile(dir, bad), []byte("w0rld!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Vouch(blobFile(dir, bad), "sound"); err != nil {
		t.Fatal(err)
	}
	fresh, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{good, bad} {
		if _, err := fresh.Get(digest); err != nil {
			t.Fatalf("what was vouched for is read again: %v", err)
		}
	}
	if err := fresh.Recheck(); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), bad) || strings.Contains(err.Error(), good) {
		t.Errorf("Recheck: %v", err)
	}
	if _, err := fresh.Get(bad); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the damaged blob is still there: %v", err)
	}
	if err := fresh.Recheck(); err != nil {
		t.Error(err)
	}
}
