//go:build linux

package initrd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/ramdisk"
)

// fake lays both lists below a temporary root and records what is loaded;
// loading a file that broken names fails.
func fake(t *testing.T, modules, aliases string, broken ...string) (*drivers, *[]string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{ramdisk.ModuleList: modules, ramdisk.AliasList: aliases} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var loaded []string
	d := &drivers{root: root, modules: map[string]*module{}, seen: map[string]bool{}, load: func(file string) error {
		name := strings.TrimPrefix(file, root+"/")
		for _, b := range broken {
			if b == name {
				return errors.New("exec format error")
			}
		}
		loaded = append(loaded, name)
		return nil
	}}
	return d, &loaded
}

const list = `!dm_verity lib/dm-verity.ko.xz dm_bufio dm_mod
dm_bufio lib/dm-bufio.ko.xz dm_mod
dm_mod lib/dm-mod.ko.xz dax
dax lib/dax.ko.xz
!erofs lib/erofs.ko
a lib/a.ko b
b lib/b.ko c
c lib/c.ko a
sd_mod lib/sd_mod.ko gone
`

func TestInsertOrder(t *testing.T) {
	d, loaded := fake(t, list, "")
	always, err := d.readModules()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dm_verity", "erofs"}, always); diff != "" {
		t.Error(diff)
	}
	for _, name := range append(always, "dm_mod", "dm_verity", "a", "b", "c") {
		if err := d.insert(name); err != nil {
			t.Error(err)
		}
	}
	// each once, what it needs before it; a circle ends where it began
	want := []string{"lib/dax.ko.xz", "lib/dm-mod.ko.xz", "lib/dm-bufio.ko.xz", "lib/dm-verity.ko.xz", "lib/erofs.ko", "lib/c.ko", "lib/b.ko", "lib/a.ko"}
	if diff := cmp.Diff(want, *loaded); diff != "" {
		t.Error(diff)
	}
}

func TestInsertFails(t *testing.T) {
	d, loaded := fake(t, list, "", "lib/dax.ko.xz")
	if _, err := d.readModules(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"sd_mod": "gone is not in the RAM disk", "nothing": "nothing is not in the RAM disk", "dm_mod": "loading kernel module dax: exec format error"} {
		if err := d.insert(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if err := d.insert("dm_verity"); err == nil || len(*loaded) > 0 {
		t.Errorf("a module was loaded without what it depends on: %v, %v", *loaded, err)
	}
}

// TestInsertWithoutADevice has a processor that lacks what a dependency is made for.
func TestInsertWithoutADevice(t *testing.T) {
	d, loaded := fake(t, list, "")
	if _, err := d.readModules(); err != nil {
		t.Fatal(err)
	}
	load := d.load
	d.load = func(file string) error {
		if filepath.Base(file) == "dax.ko.xz" {
			return unix.ENODEV
		}
		return load(file)
	}
	if err := d.insert("dm_mod"); err != nil || !slices.Equal(*loaded, []string{"lib/dm-mod.ko.xz"}) {
		t.Errorf("%v, loaded %v", err, *loaded)
	}
	if err := d.insert("dax"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("asked for itself: %v", err)
	}
}

func TestReadModulesRefuses(t *testing.T) {
	d, _ := fake(t, "dm_mod lib/dm-mod.ko\nerofs\n", "")
	if _, err := d.readModules(); err == nil || !strings.Contains(err.Error(), `bad line "erofs"`) {
		t.Error(err)
	}
	if _, err := loadDrivers(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no lists: %v", err)
	}
}

func TestLoadDriversAsksTheKernel(t *testing.T) {
	d, _ := fake(t, "!gone lib/gone.ko\n", "")
	if _, err := loadDrivers(d.root); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "loading kernel module gone") {
		t.Error(err)
	}
}

func TestMatch(t *testing.T) {
	d, _ := fake(t, "", `# comment
alias virtio:d00000002v* virtio_blk
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias pci:v00001AF4d0000100[0-9]sv*sd*bc*sc*i* virtio_pci
alias scsi:t-0x00* sd_mod
alias pci:v*d*sv*sd*bc01sc08i02* second
alias too many words here
alias [bad broken
`)
	if err := d.readAliases(); err != nil {
		t.Fatal(err)
	}
	for alias, want := range map[string][]string{
		"virtio:d00000002v00001AF4":                             {"virtio_blk"},
		"virtio:d00000001v00001AF4":                             nil,
		"pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02": {"nvme", "second"},
		"pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00": {"virtio_pci"},
		"pci:v00001AF4d0000100Asv00001AF4sd00000002bc01sc00i00": nil,
		"scsi:t-0x00": {"sd_mod"},
		"":            nil,
	} {
		if diff := cmp.Diff(want, d.match(alias)); diff != "" {
			t.Errorf("%s: %s", alias, diff)
		}
	}
}
