package cluster

import (
	"context"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/test/kit"
)

// bootByBIOS boots a worker with the kernel for all hardware on a machine without UEFI, from a copy with a stamp: it comes as
// far as one can that has a node config and no network.
func bootByBIOS(ctx context.Context, t *testing.T, k kit.Kit, more []string) {
	out := filepath.Join(k.Dir, "bios")
	_, err := k.Imgbuild(ctx, append([]string{"worker", "-o", out, "--format", "qcow2", "--set", "disk.bios=true", "--set", "base.kernel=generic"}, more...)...)
	must(t, err)
	stamped := filepath.Join(out, "stamped.qcow2")
	_, err = k.Imgbuild(ctx, "stamp", filepath.Join(out, "worker.qcow2"), "-o", stamped, "--config", filepath.Join(k.Dir, "cluster", "worker.yaml"), "--hostname", "bios")
	must(t, err)
	m, err := boottest.Start(ctx, boottest.Node{Name: "bios", Image: stamped, IP: kit.WorkerIP, Memory: 1536, CPUs: 2, BIOS: true}, t.TempDir(), "", false)
	must(t, err)
	defer m.Kill()
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("this machine has no address yet")); err != nil {
		t.Fatalf("%v\n%s", err, m.Tail(60))
	}
}
