package grub_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ulikunitz/xz/lzma"

	"github.com/imgbuild/imgbuild/internal/grub"
)

const (
	folder = "/usr/lib/grub/i386-pc"
	prefix = "(,gpt1)/loader"
	at     = 2048
)

var modules = []string{"biosdisk", "part_gpt", "fat", "normal", "linux", "loopback", "regexp", "test"}

func part(t *testing.T) func(string) ([]byte, error) {
	t.Helper()
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no " + folder + ": install grub-pc-bin (test/tools.sh does)")
	}
	return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(folder, name)) }
}

// unpacked is what a core image unpacks in memory, by the sizes that it says.
func unpacked(t *testing.T, core []byte, unpacker int) []byte {
	t.Helper()
	le := binary.LittleEndian
	rest := core[grub.Sector:]
	packed, size := le.Uint32(rest[8:]), le.Uint32(rest[12:])
	head := append([]byte{(2*5+0)*9 + 3, 0, 0, 16, 0}, le.AppendUint64(nil, uint64(size))...)
	r, err := lzma.NewReader(bytes.NewReader(append(head, rest[unpacker:unpacker+int(packed)]...)))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestAgainstMkimage holds a core image against grub-mkimage's: the same but for how well it is packed.
func TestAgainstMkimage(t *testing.T) {
	read := part(t)
	got, err := grub.Make(read, prefix, at, modules...)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "core.img")
	if out, err := exec.Command("grub-mkimage", append([]string{"-O", "i386-pc", "-d", folder, "-p", prefix, "-o", file}, modules...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, err := read("lzma_decompress.img")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := unpacked(t, got.Core, len(code)), unpacked(t, want, len(code)); !bytes.Equal(a, b) {
		t.Errorf("it unpacks to %d bytes, grub-mkimage's to %d, and they differ", len(a), len(b))
	}
	if a, b := got.Core[:0x1f4], want[:0x1f4]; !bytes.Equal(a, b) {
		t.Error("the first sector differs")
	}
	if a, b := got.Core[0x1fe:0x208], want[0x1fe:0x208]; !bytes.Equal(a, b) {
		t.Errorf("where it goes in memory, and how it unpacks: %x, want %x", a, b)
	}
	if a, b := got.Core[0x210:0x200+len(code)], want[0x210:0x200+len(code)]; !bytes.Equal(a, b) {
		t.Error("what unpacks it differs")
	}
	le := binary.LittleEndian
	if start, n := le.Uint64(got.Core[0x1f4:]), int(le.Uint16(got.Core[0x1fc:])); start != at+1 || n != len(got.Core)/grub.Sector-1 {
		t.Errorf("it says that %d sectors follow at %d", n, start)
	}
	t.Logf("%d bytes, by grub-mkimage %d", len(got.Core), len(want))
	again, err := grub.Make(read, prefix, at, modules...)
	if err != nil || !bytes.Equal(again.Core, got.Core) || !bytes.Equal(again.Boot, got.Boot) {
		t.Errorf("once more it is another one (%v)", err)
	}
}

func TestRefused(t *testing.T) {
	read := part(t)
	instead := func(name string, data []byte) func(string) ([]byte, error) {
		return func(n string) ([]byte, error) {
			if n == name {
				return data, nil
			}
			return read(n)
		}
	}
	for what, c := range map[string]struct {
		part    func(string) ([]byte, error)
		modules []string
	}{
		"unknown module": {read, []string{"nonsense"}},
		"short boot.img": {instead("boot.img", make([]byte, 100)), modules},
		"empty unpacker": {instead("lzma_decompress.img", nil), modules},
		"no kernel":      {instead("kernel.img", []byte("none")), modules},
		"no list":        {instead("moddep.lst", nil), modules},
		"missing file":   {func(string) ([]byte, error) { return nil, fs.ErrNotExist }, modules},
		"too large":      {instead("fat.mod", noise(1<<20)), modules},
	} {
		if _, err := grub.Make(c.part, prefix, at, c.modules...); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// noise is what no packing makes smaller.
func noise(n int) []byte {
	out, x := make([]byte, n), uint32(1)
	for i := range out {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		out[i] = byte(x)
	}
	return out
}
