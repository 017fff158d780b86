package stamp

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/pe"
)

// networkNode makes the image of a worker for network boot, as small as one can be.
func networkNode(t testing.TB, credentials map[string][]byte) string {
	t.Helper()
	slot, err := netboot.Fill(credentials)
	must(t, err)
	uki, err := pe.UKI(disktest.Stub(), []pe.Section{{Name: ".osrel", Data: []byte("ID=debian\nIMAGE_ID=imgbuild-worker\n")},
		{Name: ".cmdline", Data: []byte("roothash=00 panic=10")}, {Name: ".linux", Data: make([]byte, 5000)}, {Name: netboot.Section, Data: append(slot, bytes.Repeat([]byte("root"), 1<<18)...)}})
	must(t, err)
	file := filepath.Join(t.TempDir(), "worker.netboot.efi")
	must(t, os.WriteFile(file, uki, 0o600))
	return file
}

func TestNetboot(t *testing.T) {
	file := networkNode(t, nil)
	plain, err := os.ReadFile(file)
	must(t, err)
	n, err := OpenNetboot(file)
	must(t, err)
	defer n.Close()
	if n.Cmdline() != "roothash=00 panic=10" || n.Role() != "worker" || n.Size() != int64(len(plain)) {
		t.Errorf("role %q, %d bytes", n.Role(), n.Size())
	}
	node := worker(t)
	r, err := n.Reader(Stamp{Config: node, Network: map[string][]byte{"10-x.network": []byte("[Match]\n")}}, map[string][]byte{"imgbuild.var": []byte("memory")})
	must(t, err)
	filled, err := io.ReadAll(r)
	must(t, err)
	if len(filled) != len(plain) || !bytes.Equal(filled[:n.slot], plain[:n.slot]) || !bytes.Equal(filled[n.slot+netboot.Slot:], plain[n.slot+netboot.Slot:]) {
		t.Error("more than the slot is another")
	}
	got, err := netboot.Credentials(filled[n.slot : n.slot+netboot.Slot])
	if d := cmp.Diff(map[string][]byte{config.Credential: node, "network.network.10-x": []byte("[Match]\n"), "imgbuild.var": []byte("memory")}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for _, at := range []int64{0, n.slot - 3, n.slot, n.slot + 1, n.slot + netboot.Slot - 3, n.slot + netboot.Slot, int64(len(plain)) - 3} { // as ranges ask
		b := make([]byte, 7)
		_, err := r.Seek(at, io.SeekStart)
		must(t, err)
		k, _ := io.ReadFull(r, b)
		if !bytes.Equal(b[:k], filled[at:at+int64(k)]) {
			t.Errorf("another content from %d on", at)
		}
	}
	if _, err := n.Reader(Stamp{}, map[string][]byte{"big": make([]byte, netboot.Slot)}); err == nil || !strings.Contains(err.Error(), "has room for") {
		t.Error(err)
	}
	master, err := os.ReadFile(saved(t, identity.MasterFile))
	must(t, err)
	if _, err := n.Reader(Stamp{Config: master}, nil); err == nil || !strings.Contains(err.Error(), "it is a worker's image") {
		t.Error(err)
	}
}

func TestNoNetboot(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"stamped": {networkNode(t, map[string][]byte{"imgbuild.config": []byte("x")}), "it carries 1 credentials"},
		"a disk":  {node(t)["raw"], "it is not made for network boot"},
		"nothing": {filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		if _, err := OpenNetboot(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
