package install

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// onCD is a machine that booted from a CD with an image, and a stick in it, too.
func onCD(t *testing.T) (*site, []byte) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(6 << 20); err != nil {
		t.Fatal(err)
	}
	if err := gpt.Write(file, gpt.Table{GUID: repro.UUID("disk").String(), Partitions: []gpt.Partition{
		{Name: "esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("esp").String(), Start: 1 << 20, Size: 4 << 20}}}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, raw, nil)
	s.order.URL, s.order.Done = "", ""
	put := func(name, text string) {
		name = filepath.Join(s.Root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		put(name, "")
		if err := os.Remove(filepath.Join(s.Root, name)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(s.Root, name)); err != nil {
			t.Fatal(err)
		}
	}
	put("run/imgbuild/medium/image", string(raw))
	link("../../../dev/sda", "run/imgbuild/medium/device")
	for name, sectors := range map[string]string{"sda": "2000000", "vda": "50331648", "loop0": "2000", "sr0": "2000"} {
		put("dev/"+name+"-", "")
		put("sys/devices/"+name+"/size", sectors+"\n")
		if name != "loop0" {
			put("sys/devices/"+name+"/device/model", "")
		}
		link("../../devices/"+name, "sys/class/block/"+name)
	}
	put("dev/sda", "the stick")
	put("dev/sda2", "its image")
	put("sys/devices/sda/sda2/partition", "2\n")
	link("../../devices/sda/sda2", "sys/class/block/sda2")
	link("../../vda", "dev/disk/by-id/virtio-1")
	link("../../sda2", "dev/disk/by-id/usb-1-part2")
	put("sys/firmware/efi/efivars/BootOrder"+global, "\x07\x00\x00\x00\x01\x00\x00\x00")
	put("sys/firmware/efi/efivars/Boot0000"+global, "\x07\x00\x00\x00CD")
	put("sys/firmware/efi/efivars/Boot0001"+global, "\x07\x00\x00\x00net")
	return s, raw
}

func TestMedium(t *testing.T) {
	s, raw := onCD(t)
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(s.disk)
	if err != nil || !bytes.Equal(have[:len(raw)], raw) {
		t.Errorf("the disk is not the image: %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(s.Root, "run/imgbuild/esp/loader/credentials/imgbuild.config.cred")); string(text) != "the node's" {
		t.Errorf("the machine's config is %q", text)
	}
	order, _ := os.ReadFile(s.variable("BootOrder"))
	if d := cmp.Diff([]byte{7, 0, 0, 0, 2, 0, 1, 0, 0, 0}, order); d != "" {
		t.Error(d)
	}
	if last := s.m.calls[len(s.m.calls)-1]; last != "systemctl reboot --no-block" {
		t.Errorf("it ends with %q", last)
	}
	// booted from the medium once more
	s.m.calls = nil
	if err := os.WriteFile(s.disk, append(bytes.Clone(raw), "state"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.run(t); err != nil || len(s.m.calls) > 0 || !strings.Contains(s.said.String(), "/dev/vda has this image already: nothing is written.") {
		t.Errorf("%v, %q\n%s", err, s.m.calls, s.said)
	}
	s.order.Again = true
	if err := s.run(t); err != nil || len(s.m.calls) == 0 {
		t.Errorf("%v, %q\n%s", err, s.m.calls, s.said)
	}
	if again, _ := os.ReadFile(s.variable("BootOrder")); !bytes.Equal(again, order) {
		t.Errorf("installed anew, the boot order is %x", again)
	}
}

// TestMediumRefuses wants nothing written, and no reboot.
func TestMediumRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		disk, want string
		remove     string
	}{
		"the medium":             {"/dev/sda", "/dev/sda is the medium that this machine booted from", ""},
		"the medium's partition": {"/dev/sda2", "/dev/sda2 is the medium", ""},
		"the medium by its id":   {"/dev/disk/by-id/usb-1-part2", "is the medium", ""},
		"no medium":              {"/dev/vda", "no URL, and no medium", "run/imgbuild/medium/image"},
	} {
		s, _ := onCD(t)
		s.order.Disk = c.disk
		if c.remove != "" {
			if err := os.Remove(filepath.Join(s.Root, c.remove)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.run(t); err == nil || !strings.Contains(err.Error(), c.want) || len(s.m.calls) > 0 {
			t.Errorf("%s: error %v, %q", name, err, s.m.calls)
		}
		for file, want := range map[string]string{"dev/sda": "the stick", "dev/sda2": "its image"} {
			if text, _ := os.ReadFile(filepath.Join(s.Root, file)); string(text) != want {
				t.Errorf("%s: %s is %q", name, file, text)
			}
		}
	}
}

// TestMediumWithoutOrder writes nothing, and says what to do.
func TestMediumWithoutOrder(t *testing.T) {
	s, _ := onCD(t)
	if err := s.Run(t.Context()); err != nil || len(s.m.calls) > 0 {
		t.Errorf("%v, %q", err, s.m.calls)
	}
	if have, _ := os.ReadFile(s.disk); !bytes.HasPrefix(have, []byte("old!")) {
		t.Error("the disk was written to")
	}
	want := `this install medium was not told which disk to write: nothing is written. Tell a copy of it, and boot that:
  imgbuild stamp NODE.iso -o COPY.iso --config NODE.yaml --disk DISK
a disk of this machine: /dev/vda, 24576 MiB, /dev/disk/by-id/virtio-1
`
	if d := cmp.Diff(want, s.said.String()); d != "" {
		t.Error(d)
	}
}

// TestLoadOption lays the entry out as UEFI 2.10 does, sections 3.1.3 and 10.3.
func TestLoadOption(t *testing.T) {
	entry := make([]byte, 128)
	copy(entry[16:], bytes.Repeat([]byte{0xab}, 16))
	binary.LittleEndian.PutUint64(entry[32:], 0x800)
	binary.LittleEndian.PutUint64(entry[40:], 0x407ff)
	want := "01000000" + "5e00" + "69006d0067006200750069006c0064000000" +
		"04012a00" + "01000000" + "0008000000000000" + "0000040000000000" + strings.Repeat("ab", 16) + "0202" +
		"04043000" + "5c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e004500460049000000" + "7fff0400"
	if got := hex.EncodeToString(loadOption(entry)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
