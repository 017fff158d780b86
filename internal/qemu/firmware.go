package qemu

import (
	"os"

	"github.com/imgbuild/imgbuild/internal/run"
)

// firmware is a UEFI build without Secure Boot: its code, and the variables that
// each machine gets a copy of.
type firmware struct{ code, vars string }

// firmwares are the places where distributions keep it, Debian first.
var firmwares = []firmware{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
	{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
	{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
}

// findFirmware is the first of places that this host has.
func findFirmware(places []firmware) (firmware, error) {
	for _, f := range places {
		if exists(f.code) && exists(f.vars) {
			return f, nil
		}
	}
	return firmware{}, &run.MissingToolError{Tool: places[0].code, Package: "ovmf"}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
