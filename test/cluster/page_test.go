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

// runPage does what a page shows, line by line, in a folder with the images and the
// cluster's identity, and returns that.
func runPage(ctx context.Context, t *testing.T, k kit.Kit, page string) (dir string) {
	dir = t.TempDir()
	for _, name := range []string{"10-static.network", "machines.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	for _, name := range []string{"out", "cluster"} {
		must(t, os.Symlink(filepath.Join(k.Dir, name), filepath.Join(dir, name)))
	}
	lines, err := kit.Commands(page)
	must(t, err)
	for _, args := range lines {
		must(t, run.Run(ctx, run.Cmd{Name: filepath.Join(k.Bin, "imgbuild"), Args: args, Dir: dir, Stdout: k.Said, Stderr: k.Said}))
	}
	return dir
}

// lookInside does what docs/contents.md shows.
func lookInside(ctx context.Context, t *testing.T, k kit.Kit) {
	dir := runPage(ctx, t, k, "../../docs/contents.md")
	for name, want := range map[string]string{"worker.html": `<div class="program"`, "difference.html": "keepalived"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q (%v)", name, want, err)
		}
	}
	var said strings.Builder // of the image that cannot be read, and not of the other
	err := run.Run(ctx, run.Cmd{Name: filepath.Join(k.Bin, "imgbuild"), Args: []string{"diff", "out/worker.qcow2", "nosuch.raw"}, Dir: dir, Stderr: &said})
	if err == nil || !strings.Contains(said.String(), "nosuch.raw") || strings.Contains(said.String(), "worker.qcow2") {
		t.Errorf("diff with an image that is not there: %v, %s", err, said.String())
	}
}

// stampImages does what docs/stamp.md shows, which has the files that it speaks of.
func stampImages(ctx context.Context, t *testing.T, k kit.Kit, image string) {
	dir := runPage(ctx, t, k, "../../docs/stamp.md")
	page, err := os.ReadFile("../../docs/stamp.md")
	must(t, err)
	for _, name := range []string{"10-static.network", "machines.yaml"} {
		if text, err := os.ReadFile(filepath.Join("testdata", name)); err != nil || !strings.Contains(string(page), "\n"+string(text)) {
			t.Errorf("the page shows another %s (%v)", name, err)
		}
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
