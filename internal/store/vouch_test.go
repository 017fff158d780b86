package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestVouchedUntilTouched(t *testing.T) {
	s, _ := open(t)
	file := filepath.Join(t.TempDir(), "out")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	vouch := func() {
		t.Helper()
		if err := s.Vouch(file, "the plan"); err != nil {
			t.Fatal(err)
		}
		if !s.Vouched(file, "the plan") {
			t.Fatal("not vouched for")
		}
	}
	if s.Vouched(file, "the plan") || s.Vouch(file, "the plan") == nil {
		t.Error("a file that is not there is vouched for")
	}
	write("one")
	if s.Vouched(file, "the plan") {
		t.Error("vouched for before anybody said so")
	}
	vouch()
	if s.Vouched(file, "another plan") {
		t.Error("vouched for as something else")
	}
	when := time.Now().Add(-time.Hour)
	for name, change := range map[string]func() error{
		"same size, old time put back": func() error { write("two"); return os.Chtimes(file, when, when) },
		"longer":                       func() error { write("three"); return nil },
		"mode":                         func() error { return os.Chmod(file, 0o644) },
		"replaced": func() error {
			return os.Rename(filepath.Join(filepath.Dir(file), "other"), file)
		},
	} {
		write("one")
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), "other"), []byte("one"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, when, when); err != nil {
			t.Fatal(err)
		}
		vouch()
		time.Sleep(20 * time.Millisecond) // a kernel's clock tick
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if s.Vouched(file, "the plan") {
			t.Errorf("%s: still vouched for", name)
		}
	}
}
