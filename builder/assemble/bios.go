package assemble

import (
	"bytes"
	"debug/pe"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/grub"
	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// biosSize is that of the partition for what a BIOS boots, bytes; 0 where there is none.
func biosSize(p *plan.Plan) int64 {
	if p.Disk.BIOS {
		return gpt.Alignment
	}
	return 0
}

// biosConfig is where GRUB looks for its commands, in the EFI system partition.
const biosConfig = "loader/grub.cfg"

// biosParts are GRUB's files in the base, of the package grub-pc-bin.
const biosParts = "usr/lib/grub/i386-pc"

// biosCommands have GRUB do what systemd-stub does: start the kernel in the UKI with the
// UKI's RAM disk and command line, and hand a stamp's credentials on. The kernel and the
// RAM disk are on the disk once.
func biosCommands(name string, uki []byte) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(uki))
	if err != nil {
		return nil, err
	}
	sectors := func(section string) string {
		s := f.Section(section) // which the UKI has just been given, at whole sectors
		return fmt.Sprintf("(uki)%d+%d", s.Offset/grub.Sector, (s.VirtualSize+grub.Sector-1)/grub.Sector)
	}
	cmdline, err := f.Section(".cmdline").Data()
	if err != nil {
		return nil, err
	}
	var words strings.Builder
	for word := range strings.FieldsSeq(string(bytes.TrimRight(cmdline, "\x00"))) {
		words.WriteString(" '" + word + "'") // which has no quotes: the spec lets none in
	}
	return []byte(`loopback uki /` + name + `
for file in /loader/credentials/*.cred; do
  if [ -f "$file" ]; then
    regexp --set=1:base '([^/]+)$' "$file"
    set more="$more newc:.extra/global_credentials/$base:$file"
  fi
done
linux ` + sectors(".linux") + words.String() + `
initrd ` + sectors(netboot.Section) + ` $more
boot
`), nil
}

// writeBIOS puts GRUB onto the disk: its first sector's code, and the partition at that
// place.
func writeBIOS(f *os.File, root *tree.Tree, at int64) error {
	image, err := grub.Make(func(name string) ([]byte, error) {
		data, err := root.ReadFile(path.Join(biosParts, name))
		if err != nil {
			err = fmt.Errorf("%w: the base needs the package grub-pc-bin", err)
		}
		return data, err
	}, "(,gpt1)/loader", uint64(at/grub.Sector), "biosdisk", "part_gpt", "fat", "normal", "linux", "loopback", "regexp", "test") // #nosec G115 -- a place on the disk
	if err != nil {
		return err
	}
	if len(image.Core) > gpt.Alignment {
		return fmt.Errorf("GRUB has %d bytes, and its partition %d", len(image.Core), gpt.Alignment)
	}
	if _, err := f.WriteAt(image.Boot, 0); err != nil {
		return err
	}
	_, err = f.WriteAt(image.Core, at)
	return err
}

// biosPartition is the BIOS boot partition, behind the EFI system partition.
func biosPartition(p *plan.Plan) gpt.Partition {
	return gpt.Partition{Name: "imgbuild-bios", TypeGUID: gpt.TypeBIOS, GUID: repro.UUID("bios", p.ID).String(), Start: mib + p.Disk.ESPSize, Size: biosSize(p)}
}
