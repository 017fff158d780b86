package qemu

import (
	"cmp"
	"fmt"
	"os"

	"github.com/imgbuild/imgbuild/internal/run"
)

// board is the machine for one processor architecture.
type board struct {
	arch         string
	program, pkg string     // QEMU's, and its Debian package
	machine      string     // QEMU's name of it
	emulated     string     // the processor, where it is a program
	firmwares    []firmware // as distributions place them
	firmwarePkg  string     // Debian's package of the first
	cd           []string   // the CD drive
}

// firmware is a UEFI firmware: its code, and empty variables for it.
type firmware struct{ code, vars string }

var boards = map[string]board{
	"amd64": {
		program: "qemu-system-x86_64", pkg: "qemu-system-x86", machine: "q35",
		// Without what is slower there than what it replaces: strings that are copied or cleared
		// by one instruction go byte by byte (a page fault takes six times as long), AVX by calls
		// of functions, and pages are looked up in five steps.
		emulated: "max,erms=off,fsrm=off,avx=off,avx2=off,la57=off,mpx=off,pku=off,smap=off",
		firmwares: []firmware{
			{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
		},
		firmwarePkg: "ovmf",
		cd:          []string{"-device", "ide-cd,drive=cd"},
	},
	"arm64": {
		program: "qemu-system-aarch64", pkg: "qemu-system-arm", machine: "virt,gic-version=3",
		emulated: "cortex-a72", // a later one signs pointers, which takes long to emulate
		firmwares: []firmware{
			{"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"},
			{"/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/vars-template-pflash.raw"},
		},
		firmwarePkg: "qemu-efi-aarch64",
		cd:          []string{"-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-cd,bus=scsi.0,drive=cd"},
	},
}

// boardOf is the one for an architecture as Go names it; empty: amd64.
func boardOf(arch string) (board, error) {
	arch = cmp.Or(arch, "amd64")
	b, ok := boards[arch]
	if b.arch = arch; !ok {
		return b, fmt.Errorf("no machine for architecture %q", arch)
	}
	return b, nil
}

// need finds out whether the host has the board's programs.
func (b board) need() error {
	return run.Need(map[string]string{b.program: b.pkg, "qemu-img": "qemu-utils"})
}

// firmware is the first that this host has.
func (b board) firmware() (firmware, error) {
	for _, f := range b.firmwares {
		if exists(f.code) && exists(f.vars) {
			return f, nil
		}
	}
	return firmware{}, &run.MissingToolError{Tool: b.firmwares[0].code, Package: b.firmwarePkg}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
