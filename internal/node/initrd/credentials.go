//go:build linux

package initrd

import (
	"os"
	"path/filepath"
	"strings"
)

const (
	// fromStub is where systemd-stub(7) leaves the credentials that lie in the EFI system
	// partition, each with its ending.
	fromStub, stubEnding = "/.extra/global_credentials", ".cred"
	// toSystem is where systemd takes credentials of the RAM disk from.
	toSystem = "/run/credentials/@initrd"
)

// handed are the beginnings of the names that are handed on. Nobody vouches for the EFI
// system partition, and other credentials of systemd's make units, accounts, and mounts.
var handed = []string{"imgbuild.", "network.network.", "network.netdev.", "network.link."}

// handOn gives systemd the credentials that a copy of an image was stamped with. They
// are in the clear: what hides them is who can read the disk.
func handOn(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*"+stubEnding))
	if err != nil || len(files) == 0 {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), stubEnding)
		known := false
		for _, prefix := range handed {
			known = known || strings.HasPrefix(name, prefix)
		}
		if !known {
			Log("the credential %s of the EFI system partition is not handed on", name)
			continue
		}
		text, err := os.ReadFile(file) // #nosec G304 -- what systemd-stub left
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), text, 0o400); err != nil {
			return err
		}
	}
	return nil
}
