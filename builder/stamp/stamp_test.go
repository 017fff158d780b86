package stamp

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/node/install"
	"github.com/imgbuild/imgbuild/internal/pe"
	"github.com/imgbuild/imgbuild/internal/qcow2"
	"github.com/imgbuild/imgbuild/internal/qcowview"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const mib = 1 << 20

// node makes the disk of a worker, as small as one can be, raw and qcow2.
func node(t testing.TB) map[string]string {
	t.Helper()
	uki, err := pe.UKI(disktest.Stub(), []pe.Section{{Name: ".osrel", Data: []byte("ID=debian\nIMAGE_ID=imgbuild-worker\n")}, {Name: ".linux", Data: make([]byte, 5*mib)}})
	must(t, err)
	raw := filepath.Join(t.TempDir(), "worker.raw")
	f, err := os.Create(raw)
	must(t, err)
	defer f.Close()
	table := gpt.Table{GUID: repro.UUID("d").String(), Partitions: []gpt.Partition{
		{Name: "esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("e").String(), Start: mib, Size: esp.MinSize},
		{Name: "root", TypeGUID: gpt.TypeRootAMD64, GUID: repro.UUID("r").String(), Start: mib + esp.MinSize, Size: 4 * mib}}}
	must(t, errors.Join(f.Truncate(table.DiskSize()), gpt.Write(f, table)))
	must(t, esp.Write(t.Context(), f, mib, esp.MinSize, map[string]tree.Content{"EFI/BOOT/BOOTX64.EFI": tree.Bytes("MZ boot loader"),
		"EFI/Linux/imgbuild_1+3-0.efi": tree.Bytes(uki), "loader/loader.conf": tree.Bytes("timeout 0\n")},
		esp.Options{Label: "ESP", VolumeID: 7, Epoch: repro.DefaultEpoch, Folders: []string{folder}}))
	_, err = f.WriteAt([]byte(strings.Repeat("the root", 1000)), mib+esp.MinSize)
	must(t, err)
	out := map[string]string{"raw": raw}
	for _, pack := range []bool{false, true} {
		name := fmt.Sprintf("worker-%v.qcow2", pack)
		q, err := os.Create(filepath.Join(t.TempDir(), name))
		must(t, err)
		must(t, errors.Join(qcow2.Write(t.Context(), q, f, table.DiskSize(), qcow2.Options{Compress: pack}), q.Close()))
		out[name] = q.Name()
	}
	return out
}

// worker is a node config.
func worker(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile(saved(t, identity.WorkerFile))
	must(t, err)
	return text
}

// saved is a file of a new identity's folder.
func saved(t testing.TB, name string) string {
	t.Helper()
	c, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "demo")
	must(t, c.Save(dir))
	return filepath.Join(dir, name)
}

// installer is an install medium for the disk in node's raw image, framed by its table alone.
func installer(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(node(t)["raw"])
	must(t, err)
	iso := filepath.Join(t.TempDir(), "worker.iso")
	f, err := os.Create(iso)
	must(t, err)
	defer f.Close()
	table := gpt.Table{GUID: repro.UUID("m").String(), Partitions: []gpt.Partition{
		{Name: "imgbuild-medium", TypeGUID: gpt.TypeESP, GUID: repro.UUID("me").String(), Start: mib, Size: esp.MinSize},
		{Name: medium.Partition, TypeGUID: medium.TypeImage, GUID: repro.UUID("mi").String(), Start: mib + esp.MinSize, Size: int64(len(raw))}}}
	_, err1 := f.WriteAt(raw[mib:mib+esp.MinSize], mib)
	_, err2 := f.WriteAt(raw, mib+esp.MinSize)
	must(t, errors.Join(err1, err2, f.Truncate(table.DiskSize()), gpt.Write(f, table)))
	return iso
}

// TestMedium gives an install medium its order, and takes it away again.
func TestMedium(t *testing.T) {
	iso, config := installer(t), worker(t)
	before, raw := digest(t, iso), ""
	for _, again := range []bool{false, true} {
		copied := filepath.Join(t.TempDir(), "w1.iso")
		must(t, Write(t.Context(), iso, copied, Stamp{Config: config, Disk: "/dev/vda", Again: again}))
		raw = disktest.Tool(t, "mtype", "-i", copied+"@@1M", "::loader/credentials/imgbuild.install.cred")
		var order install.Order
		must(t, json.Unmarshal([]byte(raw), &order))
		all, err := os.ReadFile(copied)
		must(t, err)
		image := all[mib+esp.MinSize : len(all)-mib]
		if want := (install.Order{Disk: "/dev/vda", SHA256: fmt.Sprintf("%x", sha256.Sum256(image)), Size: int64(len(image)), Again: again}); order != want {
			t.Errorf("the order is %+v, want %+v", order, want)
		}
		must(t, Write(t.Context(), copied, copied, Stamp{}))
		if digest(t, copied) != before {
			t.Error("cleared, the medium is not what it was")
		}
	}
	if is, err := Medium(iso); err != nil || !is {
		t.Error(is, err)
	}
	if is, err := Medium(node(t)["raw"]); err != nil || is {
		t.Error(is, err)
	}
}

// digest is that of the disk in an image.
func digest(t testing.TB, image string) string {
	t.Helper()
	f, err := os.Open(image)
	must(t, err)
	defer f.Close()
	h, r := sha256.New(), io.Reader(f)
	if strings.HasSuffix(image, "qcow2") {
		img, size, err := qcowview.Open(f)
		must(t, err)
		r = io.NewSectionReader(img, 0, size)
	}
	_, err = io.Copy(h, r)
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestStamp stamps each kind of image, and again, and takes it away: the disk is then
// what it was, to the byte. mtools and qemu-img judge what lies there in between.
func TestStamp(t *testing.T) {
	config := worker(t)
	for name, image := range node(t) {
		t.Run(name, func(t *testing.T) {
			before := digest(t, image)
			copied := filepath.Join(t.TempDir(), name)
			must(t, Write(t.Context(), image, copied, Stamp{Config: config, Network: map[string][]byte{"10-static.network": []byte("[Match]\nName=*\n")}}))
			must(t, Write(t.Context(), copied, copied, Stamp{Config: config, Network: map[string][]byte{"20-other.link": []byte("[Match]\nName=*\n")}}))
			if digest(t, image) != before {
				t.Error("the image itself has changed")
			}
			if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("who can read the copy can read the token: %v, %v", info.Mode(), err)
			}
			carried, err := Show(copied)
			must(t, err)
			if got := fmt.Sprint(carried); got != fmt.Sprintf("[{imgbuild.node %d} {network.link.20-other 15}]", len(config)) {
				t.Errorf("it carries %s", got)
			}
			raw := copied
			if name != "raw" {
				if out := disktest.Tool(t, "qemu-img", "check", copied); !strings.Contains(out, "No errors") {
					t.Error(out)
				}
				raw = copied + ".raw"
				disktest.Tool(t, "qemu-img", "convert", "-O", "raw", copied, raw)
			}
			if text := disktest.Tool(t, "mtype", "-i", raw+"@@1M", "::loader/credentials/imgbuild.node.cred"); text != string(config) {
				t.Errorf("mtools read %q", text)
			}
			must(t, Write(t.Context(), copied, copied, Stamp{}))
			if carried, err := Show(copied); err != nil || len(carried) > 0 {
				t.Errorf("cleared, it carries %v, %v", carried, err)
			}
			if digest(t, copied) != before {
				t.Error("cleared, the disk is not what it was")
			}
		})
	}
}

// TestRefused has one clear error for each mistake, and leaves nothing behind.
func TestRefused(t *testing.T) {
	images, config := node(t), worker(t)
	master, err := os.ReadFile(saved(t, identity.MasterFile))
	must(t, err)
	junk := filepath.Join(t.TempDir(), "junk")
	must(t, os.WriteFile(junk, make([]byte, 2*mib), 0o600))
	net := func(name, text string) Stamp { return Stamp{Network: map[string][]byte{name: []byte(text)}} }
	for name, c := range map[string]struct {
		image string
		s     Stamp
		want  string
	}{
		"no file":            {images["raw"] + "-none", Stamp{Config: config}, "no such file"},
		"no disk":            {junk, Stamp{Config: config}, "no disk image, raw or qcow2, of a node"},
		"no config":          {images["raw"], Stamp{Config: []byte("a: 1\n")}, "node config"},
		"another role's":     {images["raw"], Stamp{Config: master}, "a worker's image, the node config is a master's"},
		"no name for a file": {images["raw"], net("../a.network", "[Match]\n"), "want a name such as"},
		"another kind":       {images["raw"], net("a.service", "[Match]\n"), "want a name such as"},
		"a medium, no disk":  {installer(t), Stamp{Config: config}, "say which disk it writes"},
		"empty":              {images["raw"], net("a.network", ""), "want text"},
		"no section":         {images["raw"], net("a.netdev", "[Match]\n"), "systemd.netdev(5)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := Write(t.Context(), c.image, filepath.Join(dir, "copy"), c.s)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("it leaves %v, %v", left, err)
			}
		})
	}
}

func TestPersonal(t *testing.T) {
	out, err := Personal(worker(t), "w1", []string{"ssh-ed25519 AAAA ann"})
	must(t, err)
	for _, want := range []string{"hostname: w1\n", "- ssh-ed25519 AAAA ann\n", "\ntoken: "} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q", want)
		}
	}
	again, err := Personal(out, "w2", nil)
	must(t, err)
	if strings.Contains(string(again), "hostname: w1") || !strings.Contains(string(again), "ann") {
		t.Error("another name does not replace the first, or takes the keys away")
	}
	if _, err := Personal(worker(t), "W 1", nil); err == nil || !strings.Contains(err.Error(), "hostname") || strings.Contains(err.Error(), "token: ") {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
