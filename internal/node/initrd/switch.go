//go:build linux

package initrd

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const systemdPath = "/usr/lib/systemd/systemd"

// switchRoot moves the kernel's file systems over, frees the RAM disk, makes
// newRoot the root and becomes init, with arguments. It only returns with an error.
func switchRoot(init string, args ...string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s to the root file system: %w", dir, err)
		}
	}
	emptyRAMDisk()
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root file system to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return fmt.Errorf("starting %s: %w", init, unix.Exec(init, append([]string{"/sbin/init"}, args...), []string{"HOME=/", "TERM=linux"})) // #nosec G204 -- systemd from the verified root
}

// emptyRAMDisk gives the RAM disk's memory back; what is mounted is left alone.
func emptyRAMDisk() {
	for _, dir := range []string{"/lib", "/imgbuild", "/init", "/.extra"} {
		_ = os.RemoveAll(filepath.Clean(dir))
	}
}
