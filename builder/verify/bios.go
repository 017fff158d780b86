package verify

import (
	"bytes"
	"debug/pe"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
)

// biosFile is what GRUB reads.
const biosFile = "loader/grub.cfg"

var (
	biosImage  = regexp.MustCompile(`(?m)^loopback uki /(\S+)$`)
	biosKernel = regexp.MustCompile(`(?m)^linux \(uki\)(\d+\+\d+)((?: '[^']*')*)$`)
	biosInitrd = regexp.MustCompile(`(?m)^initrd \(uki\)(\d+\+\d+) `)
)

// checkBIOS holds what GRUB is told against the UKI: a BIOS and UEFI start the same kernel,
// with the same RAM disk and command line.
func (r *Report) checkBIOS(boot fs.FS, uki []byte) error {
	text, err := fs.ReadFile(boot, biosFile)
	if err != nil {
		r.say("boot", biosFile, "not in the EFI system partition, and there is a partition for BIOS")
		return nil
	}
	f, err := pe.NewFile(bytes.NewReader(uki))
	if err != nil {
		return fmt.Errorf("%s: %w", r.UKI, err)
	}
	at := func(name string) string {
		s := f.Section(name)
		if s == nil {
			return "none"
		}
		return fmt.Sprintf("%d+%d", s.Offset/sectorSize, (s.VirtualSize+sectorSize-1)/sectorSize)
	}
	got := map[string]string{}
	for what, pattern := range map[string]*regexp.Regexp{"image": biosImage, "kernel": biosKernel, "RAM disk": biosInitrd} {
		if m := pattern.FindAllSubmatch(text, -1); len(m) == 1 {
			got[what] = string(m[0][1])
			if what == "kernel" {
				got["command line"] = strings.TrimSpace(strings.ReplaceAll(string(m[0][2]), "'", ""))
			}
		}
	}
	for what, want := range map[string]string{"image": r.UKI, "kernel": at(".linux"), "RAM disk": at(".initrd"), "command line": r.Cmdline} {
		if got[what] != want {
			r.say("boot", biosFile, "by BIOS the %s is %q, by UEFI %q", what, got[what], want)
		}
	}
	return nil
}
