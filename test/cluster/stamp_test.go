package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// stampImages does what docs/stamp.md shows, line by line.
func stampImages(ctx context.Context, t *testing.T, k kit.Kit, image string) {
	dir := t.TempDir()
	page, err := os.ReadFile("../../docs/stamp.md")
	must(t, err)
	for _, name := range []string{"10-static.network", "machines.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		if !strings.Contains(string(page), "\n"+string(text)) {
			t.Errorf("the page shows another %s", name)
		}
	}
	for _, name := range []string{"out", "cluster"} {
		must(t, os.Symlink(filepath.Join(k.Dir, name), filepath.Join(dir, name)))
	}
	lines, err := kit.Commands("../../docs/stamp.md")
	must(t, err)
	for _, args := range lines {
		must(t, run.Run(ctx, run.Cmd{Name: filepath.Join(k.Bin, "imgbuild"), Args: args, Dir: dir, Stderr: k.Said}))
	}
	must(t, run.Run(ctx, run.Cmd{Name: "qemu-img", Args: []string{"compare", "-q", filepath.Join(dir, "w1.qcow2"), image}})) // cleared
	for name, want := range map[string]string{"w1.qcow2": "imgbuild.node,network.network.10-static", "w2.qcow2": "imgbuild.node"} {
		said, err := k.Imgbuild(ctx, "stamp", filepath.Join(dir, "copies", name), "--show")
		must(t, err)
		var names []string
		for line := range strings.Lines(said) {
			credential, _, _ := strings.Cut(line, "\t")
			names = append(names, credential)
		}
		if strings.Join(names, ",") != want {
			t.Errorf("%s carries %q, want %s", name, names, want)
		}
	}
	if _, err := k.Imgbuild(ctx, "verify", filepath.Join(dir, "copies", "w2.qcow2")); err == nil {
		t.Error("verify has nothing to say of a stamped copy")
	}
}
