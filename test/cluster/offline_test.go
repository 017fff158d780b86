package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// buildAgain gives the same command a second time: nothing is written while nobody
// has touched the output, and it is made anew once somebody has.
func buildAgain(ctx context.Context, t *testing.T, k kit.Kit, more []string) {
	image := filepath.Join(k.Dir, "out", "worker.qcow2")
	before, err := os.Stat(image)
	must(t, err)
	want := sha256sum(t, image)
	_, err = k.Image(ctx, "worker", "qcow2", more...)
	must(t, err)
	if after, err := os.Stat(image); err != nil || !os.SameFile(before, after) {
		t.Errorf("the image was written again though nothing had changed (%v)", err)
	}
	must(t, os.Truncate(image, before.Size()-1))
	_, err = k.Image(ctx, "worker", "qcow2", more...)
	must(t, err)
	if got := sha256sum(t, image); got != want {
		t.Errorf("the image is %s after it was damaged and built again, was %s", got, want)
	}
}

// buildOffline builds the worker a second time, into another folder, in a network
// namespace that has nothing but its loopback: the pins and the cache are all it
// takes, and the image is the same.
func buildOffline(ctx context.Context, t *testing.T, k kit.Kit, more []string) {
	first := filepath.Join(k.Dir, "out")
	second := t.TempDir()
	args := append([]string{"--net", "--map-root-user", "sh", "-c", `ip link set lo up && exec "$@"`, "sh",
		filepath.Join(k.Bin, "imgbuild"), "worker", "--offline", "--lock", filepath.Join(first, "imgbuild.lock"), "-o", second, "--format", "qcow2"}, more...)
	must(t, run.Run(ctx, run.Cmd{Name: "unshare", Args: args, Stderr: os.Stderr}))
	if a, b := sha256sum(t, filepath.Join(first, "worker.qcow2")), sha256sum(t, filepath.Join(second, "worker.qcow2")); a != b {
		t.Errorf("the same lock gave %s, and offline %s", a, b)
	}
	if _, err := k.Imgbuild(ctx, append([]string{"worker", "--offline", "--cache", t.TempDir(), "--lock", filepath.Join(first, "imgbuild.lock"), "-o", t.TempDir()}, more...)...); err == nil {
		t.Error("an empty cache was enough")
	}
}

func sha256sum(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	must(t, err)
	return hex.EncodeToString(sum.Sum(nil))
}
