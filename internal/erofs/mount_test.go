package erofs

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pkg/xattr"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestKernel holds what Linux itself sees against the tree.
func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	tr := everything(t)
	image, dir := write(t, tr), t.TempDir()
	if err := run.Run(t.Context(), run.Cmd{Name: "mount", Args: []string{"-t", "erofs", "-o", "loop,ro", image, dir}}); err != nil {
		t.Skipf("this machine cannot mount erofs: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		got[rel], err = kernelFacts(t, p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want(t, tr), got); diff != "" {
		t.Errorf("tree and mount differ (-tree +mount):\n%s", diff)
	}
}

func kernelFacts(t *testing.T, p string) (string, error) {
	t.Helper()
	info, err := os.Lstat(p)
	if err != nil {
		return "", err
	}
	if info.ModTime().Unix() != repro.DefaultEpoch {
		t.Errorf("%s: time %v", p, info.ModTime())
	}
	st := info.Sys().(*syscall.Stat_t)
	var content []byte
	var link string
	var attrs map[string]string
	switch {
	case info.Mode().IsRegular():
		if content, err = os.ReadFile(p); err != nil {
			return "", err
		}
		if value, err := xattr.LGet(p, "security.capability"); err == nil {
			attrs = map[string]string{"security.capability": string(value)}
		}
	case info.Mode()&fs.ModeSymlink != 0:
		link, err = os.Readlink(p)
	}
	return facts(info.Mode(), int(st.Uid), int(st.Gid), link, uint32(st.Rdev), attrs, content), err
}
