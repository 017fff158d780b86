package verify_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/assemble"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/internal/verity"
)

// node is a sealed node's tree, as small as verify takes it: everything that its
// rules look at is there, and as it should be.
func node(t testing.TB) *tree.Tree {
	t.Helper()
	const modules = "usr/lib/modules/6.12.1/"
	tr := tree.New()
	for p, text := range map[string]string{
		"usr/lib/os-release":                         "ID=debian\nNAME=\"Debian GNU/Linux\"\nIMAGE_ID=imgbuild-worker\n",
		"usr/lib/systemd/boot/efi/linuxx64.efi.stub": string(disktest.Stub()), "usr/lib/systemd/boot/efi/systemd-bootx64.efi": "MZ boot loader",
		modules + "modules.dep": "k/dm-verity.ko:\nk/loop.ko:\n", modules + "modules.softdep": "", modules + "modules.alias": "", modules + "k/dm-verity.ko": "ELF", modules + "k/loop.ko": "ELF loop",
		modules + "modules.builtin": "erofs.ko\nexample/overlay.ko\nexample/ext4.ko\n", "etc/machine-id": "uninitialized\n",
		"etc/passwd": "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n",
		"etc/shadow": "root:*:20000:0:99999:7:::\nsshd:!*:20000::::::\n", "etc/gshadow": "root:*::\nstaff:!::\n",
		"etc/ssl/certs/ca.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "etc/key.doc": "files that start with -----BEGIN PRIVATE KEY----- are keys",
		"etc/kubeadm.example": "token: <six>.<sixteen>\nversion: v1.37.2\n",
	} {
		put(t, tr, p, text, 0o644)
	}
	put(t, tr, "usr/bin/su", "su", fs.ModeSetuid|0o755)
	put(t, tr, "usr/bin/chage", "chage", fs.ModeSetgid|0o755)
	for i := range 300 { // enough for a hash tree of two levels
		put(t, tr, fmt.Sprintf("usr/share/f%03d", i), strings.Repeat(fmt.Sprintf("%04d", i), 1500), 0o644)
	}
	for p, n := range map[string]tree.Node{
		"var": {Mode: fs.ModeDir | 0o755}, "tmp": {Mode: fs.ModeDir | fs.ModeSticky | 0o777}, "usr/local/lib": {Mode: fs.ModeDir | fs.ModeSetgid | 0o775, GID: 50},
		"root": {Mode: fs.ModeSymlink | 0o777, Link: "var/roothome"},
	} {
		if err := tr.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	fit(t, tr)
	return tr
}

func put(t testing.TB, tr *tree.Tree, p, text string, mode fs.FileMode) {
	t.Helper()
	if err := tr.Put(p, tree.Node{Mode: mode, Content: tree.Bytes(text)}); err != nil {
		t.Fatal(err)
	}
}

// build assembles the tree into a disk, with the writers that builds use.
func build(t testing.TB, tr *tree.Tree, words ...string) *assemble.Disk {
	t.Helper()
	p, kernel, sealed := seal(t, tr, words...)
	d, err := assemble.Build(t.Context(), p, tr, kernel, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func seal(t testing.TB, tr *tree.Tree, words ...string) (*plan.Plan, rootfs.Kernel, *assemble.Sealed) {
	t.Helper()
	p := &plan.Plan{ID: strings.Repeat("0123456789abcdef", 4), Role: "worker", Arch: "amd64", Spec: &spec.Node{Kubernetes: spec.Kubernetes{Version: "1.37.2"}},
		Cmdline: append([]string{"systemd.swap=0"}, words...), Disk: plan.Disk{ESPSize: 34 << 20, RootName: "imgbuild-root", TreeName: "imgbuild-verity"}}
	kernel := rootfs.Kernel{Release: "6.12.1", Image: tree.Bytes("MZ kernel")}
	cache, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := assemble.Seal(t.Context(), p, tr, kernel, []byte("ELF init"), t.TempDir(), cache)
	if err != nil {
		t.Fatal(err)
	}
	return p, kernel, sealed
}

// corrupt opens a disk for the test to change.
func corrupt(t testing.TB, file string, change func(f *os.File) error) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change(f), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// flip changes one bit of a file.
func flip(f *os.File, at int64, bit int) error {
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1 << bit
	_, err := f.WriteAt(b, at)
	return err
}

// where finds a text on the disk.
func where(t testing.TB, file, text string) int64 {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(data), text)
	if i < 0 {
		t.Fatalf("%q is not on the disk", text)
	}
	return int64(i)
}

// reseal writes the hash tree of the root partition anew, for a disk whose root
// file system was changed, and returns the hash that now fits. It is what an
// attacker could do who may write the disk but not the command line's hash.
func reseal(t testing.TB, f *os.File, rootAt, rootSize, treeAt int64, salt []byte) string {
	t.Helper()
	made, err := verity.New(t.Context(), io.NewSectionReader(f, rootAt, rootSize), salt).Write(io.NewOffsetWriter(f, treeAt), rootSize, [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", made.RootHash)
}
