package firstboot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// writtenThrough says whether writes to a file wait for the disk.
func writtenThrough(t *testing.T, name string) bool {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Skipf("the file system of the test's folder has no flags: %v", err)
	}
	return flags&syncFlag != 0
}

// TestEtcdStartsAgain has the power go as a second master's etcd becomes a member: what is
// written of it by then has to be on the disk, for the first one's etcd cannot go on without.
func TestEtcdStartsAgain(t *testing.T) {
	whole, _ := joiner(t, member("1", "m1", "10.0.0.10"))
	if said, err := whole.boot(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	n, _ := joiner(t, member("1", "m1", "10.0.0.10"))
	n.cutAt = 1 + slices.IndexFunc(whole.calls, func(call string) bool { return strings.Contains(call, etcdNext) })
	if said, err := n.boot(); !errors.Is(err, context.Canceled) || n.phase() != Dirty {
		t.Fatalf("phase %s, %v\n%s", n.phase(), err, said)
	}
	manifest := filepath.Join(n.root, "etc/kubernetes/manifests/etcd.yaml")
	if err := os.WriteFile(manifest, []byte("etcd"), 0o600); err != nil { // as kubeadm writes it
		t.Fatal(err)
	}
	if !writtenThrough(t, filepath.Dir(manifest)) || !writtenThrough(t, manifest) {
		t.Error("etcd's manifest may be empty after a power cut")
	}
}
