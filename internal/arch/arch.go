// Package arch is the one table of processor architectures: what others call them.
// By itself a name is Go's, which is Debian's and OCI's too: amd64, arm64.
package arch

import (
	"debug/elf"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Names of one architecture.
type Names struct {
	Triplet  string      // GNU's, Debian's multiarch folder: x86_64-linux-gnu
	EFI      string      // UEFI specification, section 3.5.1.1, in lower case: x64 of BOOTX64.EFI
	OS       string      // os-release(5), ARCHITECTURE=: x86-64
	IPXE     string      // iPXE's buildarch: x86_64
	Machine  elf.Machine // in an ELF header
	Consoles []string    // console= of its kernels, the serial ports that its machines may have last
}

var table = map[string]Names{
	"amd64": {"x86_64-linux-gnu", "x64", "x86-64", "x86_64", elf.EM_X86_64, []string{"tty0", "ttyS0,115200n8"}},
	"arm64": {"aarch64-linux-gnu", "aa64", "arm64", "arm64", elf.EM_AARCH64, []string{"tty0", "ttyS0,115200n8", "ttyAMA0,115200n8"}},
}

// All are the architectures, sorted.
func All() []string { return slices.Sorted(maps.Keys(table)) }

// Of gives an architecture's names, or an error that says which there are.
func Of(name string) (Names, error) {
	n, ok := table[name]
	if !ok {
		return n, fmt.Errorf("no architecture is called %q: use %s", name, strings.Join(All(), " or "))
	}
	return n, nil
}

// Suffix tells what is for an architecture from what is for amd64, which has none.
func Suffix(name string) string {
	if name == "amd64" {
		return ""
	}
	return "-" + name
}

// Loader is where firmware looks for a boot loader on a medium, with slashes (UEFI
// specification, section 3.5.1.1).
func (n Names) Loader() string { return "EFI/BOOT/BOOT" + strings.ToUpper(n.EFI) + ".EFI" }
