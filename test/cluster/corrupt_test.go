package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// refuseCorruptRoot boots an image with a damaged root: the kernel must refuse it.
func refuseCorruptRoot(ctx context.Context, t *testing.T, image string, k kit.Kit) {
	bad := filepath.Join(k.Dir, "bad.raw")
	must(t, run.Run(ctx, run.Cmd{Name: "qemu-img", Args: []string{"convert", "-f", "qcow2", "-O", "raw", image, bad}}))
	defer os.Remove(bad)
	good, err := verify.Image(ctx, bad)
	must(t, err)
	f, err := os.OpenFile(bad, os.O_RDWR, 0)
	must(t, err)
	for _, p := range good.Partitions {
		if p.Name == "imgbuild-root" {
			_, err = f.WriteAt(make([]byte, 100<<20), p.Start+1<<20)
			must(t, err)
		}
	}
	must(t, f.Close())
	if report, err := verify.Image(ctx, bad); err == nil && len(report.Findings) == 0 {
		t.Error("verify finds nothing wrong with a root whose first 100 MiB are zero")
	}
	scratch := t.TempDir()
	m, err := boottest.Start(ctx, boottest.Node{Name: "corrupt", Image: bad, IP: kit.WorkerIP, Memory: 1024, CPUs: 2}, scratch, "", false)
	must(t, err)
	defer m.Kill()
	for end := time.Now().Add(8 * time.Minute); ; time.Sleep(time.Second) {
		console := m.Tail(2000)
		if strings.Contains(console, "is corrupted") {
			return
		}
		if strings.Contains(console, "Reached target multi-user.target") || time.Now().After(end) {
			t.Fatalf("the kernel does not refuse a corrupt root:\n%s", m.Tail(40))
		}
	}
}
