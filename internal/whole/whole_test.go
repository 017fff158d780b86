package whole

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/imgbuild/imgbuild/internal/fault"
)

func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{os.WriteFile(in("old"), []byte("old"), 0o600), os.Symlink("old", in("link")), os.Symlink("none", in("dangling")),
		os.Mkdir(in("folder"), 0o700), syscall.Mkfifo(in("pipe"), 0o600), os.Symlink("pipe", in("to-pipe"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"new", "old", "link"} {
		if err := WriteFile(in(name), []byte("text of "+name), 0o644); err != nil {
			t.Error(err)
		}
		text, err := os.ReadFile(in(name))
		info, serr := os.Stat(in(name))
		if string(text) != "text of "+name || err != nil || serr != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %q, %v, %v", name, text, err, info)
		}
	}
	if to, err := os.Readlink(in("link")); to != "old" || err != nil {
		t.Errorf("the link is %q, %v", to, err)
	}
	for _, name := range []string{"folder", "pipe", "to-pipe", "dangling"} {
		err := WriteFile(in(name), []byte("x"), 0o644)
		if fault.KindOf(err) != fault.Usage || !strings.Contains(err.Error(), in(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 7 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
