//go:build linux

package initrd

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/repro"
)

const mib = 1 << 20

var hash = append(bytes.Repeat([]byte{0xab, 0x01}, 8), bytes.Repeat([]byte{0xc0, 0xff}, 8)...)

// write puts a file and the folders above it.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// machine makes a /dev with two disks, the first partitioned, and a /sys that
// shows them as the kernel does: links into the folder of devices.
func machine(t *testing.T) (sys, dev string) {
	t.Helper()
	top := t.TempDir()
	sys, dev = filepath.Join(top, "class/block"), filepath.Join(top, "dev")
	write(t, filepath.Join(dev, "vdb"), strings.Repeat("no table", 2000))
	f, err := os.Create(filepath.Join(dev, "vda"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // a test's file
	root, verity, err := gpt.VerityGUIDs(hash)
	if err != nil {
		t.Fatal(err)
	}
	table := gpt.Table{GUID: repro.UUID("d").String(), Partitions: []gpt.Partition{
		{Name: "esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("e").String(), Start: mib, Size: mib},
		{Name: "root", TypeGUID: gpt.TypeRootAMD64, GUID: root, Start: 2 * mib, Size: mib},
		{Name: "verity", TypeGUID: gpt.TypeRootVerityAMD64, GUID: verity, Start: 3 * mib, Size: mib},
		{Name: VarLabel, TypeGUID: gpt.TypeVar, GUID: repro.UUID("v").String(), Start: 4 * mib, Size: mib},
	}}
	if err := errors.Join(f.Truncate(table.DiskSize()), gpt.Write(f, table)); err != nil {
		t.Fatal(err)
	}
	for p, facts := range map[string]string{
		"vda": "DEVTYPE=disk\nDEVNAME=vda\n", "vdb": "DEVTYPE=disk\n", "vda/vda1": "DEVTYPE=partition\nPARTN=1\nPARTNAME=esp\n",
		"vda/vda2": "DEVTYPE=partition\nPARTN=2\nPARTNAME=root\n", "vda/vda3": "DEVTYPE=partition\nPARTN=3\n",
		"vda/vda4": "DEVTYPE=partition\nPARTN=4\nPARTNAME=" + VarLabel + "\n", "vdb/vdb1": "DEVTYPE=partition\nPARTN=1\nPARTNAME=" + VarLabel + "\n",
	} {
		write(t, filepath.Join(top, "devices/pci0/virtio1/block", p, "uevent"), facts)
		if err := errors.Join(os.MkdirAll(sys, 0o755), os.Symlink("../../devices/pci0/virtio1/block/"+p, filepath.Join(sys, filepath.Base(p)))); err != nil {
			t.Fatal(err)
		}
	}
	return sys, dev
}

func TestPartitions(t *testing.T) {
	sys, dev := machine(t)
	found := partitions(sys, dev)
	for uuid, want := range map[string]string{uuidOf(hash[:16]): "/dev/vda2", uuidOf(hash[16:]): "/dev/vda3", repro.UUID("v").String(): "/dev/vda4", repro.UUID("x").String(): ""} {
		if got := found.byUUID(uuid); got != want {
			t.Errorf("%s is %q, want %q", uuid, got, want)
		}
	}
	for device, want := range map[string]string{"/dev/vda2": "/dev/vda4", "/dev/vdb1": "/dev/vdb1", "/dev/vda": "", "/dev/sda1": ""} {
		if got := found.sibling(device, VarLabel); got != want {
			t.Errorf("/var beside %s is %q, want %q", device, got, want)
		}
	}
	if diff := cmp.Diff([]string{"vda", "vdb"}, found.disks()); diff != "" {
		t.Error(diff)
	}
	if got := partitions(filepath.Join(sys, "none"), dev); got != nil {
		t.Errorf("without /sys: %v", got)
	}
}

// TestPartitionUUIDs: a damaged table finds nothing, and harms nothing.
func TestPartitionUUIDs(t *testing.T) {
	_, dev := machine(t)
	good, err := os.ReadFile(filepath.Join(dev, "vda"))
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   string // UUID of partition 2
	}{
		"good":              {func(b []byte) []byte { return b }, uuidOf(hash[:16])},
		"no magic":          {func(b []byte) []byte { b[512] = 'X'; return b }, ""},
		"empty":             {func([]byte) []byte { return nil }, ""},
		"cut":               {func(b []byte) []byte { return b[:1024] }, ""},
		"entries of 1 byte": {func(b []byte) []byte { le.PutUint32(b[512+84:], 1); return b }, ""},
		"entries of 4 GiB":  {func(b []byte) []byte { le.PutUint32(b[512+84:], 1<<32-1); return b }, ""},
		"4 billion entries": {func(b []byte) []byte { le.PutUint32(b[512+80:], 1<<32-1); return b }, uuidOf(hash[:16])},
		"far away":          {func(b []byte) []byte { le.PutUint64(b[512+72:], 1<<40); return b }, ""},
		"sectors of 4096": {func(b []byte) []byte {
			out := make([]byte, 4096*40)
			copy(out[4096:], b[512:1024])
			copy(out[8192:], b[1024:1024+128*128])
			return out
		}, uuidOf(hash[:16])},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			write(t, file, string(c.change(bytes.Clone(good))))
			if got := partitionUUIDs(file)[2]; got != c.want {
				t.Errorf("partition 2 is %q, want %q", got, c.want)
			}
		})
	}
	if got := partitionUUIDs(filepath.Join(dev, "none")); len(got) > 0 {
		t.Error(got)
	}
}

func TestRootHash(t *testing.T) {
	text := hex.EncodeToString(hash)
	for line, want := range map[string]string{
		"quiet roothash=" + text + " panic=10\n": "",
		"roothash=" + strings.ToUpper(text):      "",
		"":                                       "no roothash=",
		"xroothash=" + text:                      "no roothash=",
		"roothash=":                              "want 64 hex digits",
		"roothash=" + text[2:]:                   "want 64 hex digits",
		"roothash=" + text + "00":                "want 64 hex digits",
		"roothash=zz" + text[2:]:                 "want 64 hex digits",
	} {
		got, err := rootHash(line)
		switch {
		case want == "" && (err != nil || !bytes.Equal(got, hash)):
			t.Errorf("%q: %x, %v", line, got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: error %v, want %q", line, err, want)
		}
	}
}

func TestReadMachineID(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want, err string }{
		"kept":          {id + "\n", id, ""},
		"no newline":    {id, id, ""},
		"empty":         {"", "", "damaged"},
		"uninitialized": {"uninitialized\n", "", "damaged"},
		"short":         {id[2:], "", "damaged"},
		"two":           {id + "\n" + id + "\n", "", "damaged"},
	} {
		file := filepath.Join(dir, name)
		write(t, file, c.text)
		got, err := readMachineID(file)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := readMachineID(filepath.Join(dir, "none")); got != "" || err != nil {
		t.Errorf("a node that has not booted before: %q, %v", got, err)
	}
	if _, err := readMachineID(dir); err == nil {
		t.Error("a folder was read")
	}
}

func TestRestoreMachineIDWithoutVar(t *testing.T) {
	if err := restoreMachineID(""); err != nil {
		t.Error(err)
	}
}
