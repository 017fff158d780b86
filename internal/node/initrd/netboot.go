//go:build linux

package initrd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/netboot"
)

// The credentials of a slot that say what a machine that boots by network does, beside
// those that a disk's stamp has.
const (
	// VarCredential is where such a node keeps its state: a disk's path, or "memory", which
	// is what it is without a word.
	VarCredential = "imgbuild.var" // #nosec G101 -- a name
	// InstallCredential makes the machine write a disk image to its disk, and no node.
	InstallCredential = "imgbuild.install"
)

// installTarget is what systemd goes for then.
const installTarget = "imgbuild-install.target"

// units is where units for this boot alone lie.
const units = "/run/systemd/system"

// inMemory says whether the RAM disk carries the root file system.
func inMemory() bool {
	_, err := os.Stat(filepath.Join("/", netboot.Root))
	return err == nil
}

// memoryRoot makes block devices of the root and its hash tree in the RAM disk. Their
// memory is theirs when the files are gone.
func memoryRoot() (root, tree string, err error) {
	files, _ := filepath.Glob(filepath.Join("/", netboot.Loop) + "*")
	for _, file := range files {
		if err := insert(file); err != nil {
			return "", "", fmt.Errorf("loading %s: %w", file, err)
		}
	}
	if root, err = loop(filepath.Join("/", netboot.Root)); err != nil {
		return "", "", err
	}
	tree, err = loop(filepath.Join("/", netboot.Tree))
	return root, tree, err
}

// loop makes a read-only block device of a file (loop(4)).
func loop(file string) (device string, err error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()                                                 //nolint:errcheck // nothing was written
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE) // #nosec G115 -- a descriptor is small
	if err != nil {
		return "", fmt.Errorf("a free loop device: %w", err)
	}
	f, err := os.Open(file) // #nosec G304 -- a fixed place of the RAM disk
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // the device holds it
	device = fmt.Sprintf("/dev/loop%d", n)
	d, err := os.OpenFile(device, os.O_RDONLY, 0) // #nosec G304 -- as the kernel named it
	if err != nil {
		return "", err
	}
	defer d.Close()                                                                                                  //nolint:errcheck // nothing was written
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Size: 4096, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY}} // #nosec G115 -- a descriptor is small
	if err := unix.IoctlLoopConfigure(int(d.Fd()), &config); err != nil {                                            // #nosec G115
		return "", fmt.Errorf("making %s of %s: %w", device, file, err)
	}
	return device, nil
}

// memory is where /var is when it is on no disk.
const memory = "memory"

// withoutDisk tells systemd, for this boot, where /var is on a machine that booted by
// network, and returns that and systemd's own arguments. One that is there to install is no node.
func withoutDisk(credentials, into string, installs bool) (where string, args []string, err error) {
	where = memory
	if text, err := os.ReadFile(filepath.Join(credentials, VarCredential)); err == nil { // #nosec G304 -- a fixed place
		where = strings.TrimSpace(string(text))
	}
	if _, err := os.Stat(filepath.Join(credentials, InstallCredential)); err == nil || installs {
		where, args = memory, []string{"--unit=" + installTarget}
	}
	files := map[string]string{"var.mount": varInMemory}
	if where != memory {
		if !strings.HasPrefix(where, "/dev/") || strings.ContainsAny(where, " \t\n%\"'\\$;") {
			return "", nil, fmt.Errorf("%s: %q is no device", VarCredential, where)
		}
		files = map[string]string{"systemd-repart.service.d/50-imgbuild-netboot.conf": strings.ReplaceAll(varOnDisk, "@DISK@", where)}
	}
	for name, text := range files {
		file := filepath.Join(into, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil { // #nosec G301 G306 -- units, no secrets
			return "", nil, err
		}
	}
	if where == memory {
		masked := []string{"systemd-repart.service", "systemd-growfs@var.service"}
		if installs {
			masked = append(masked, "systemd-networkd-wait-online.service") // what is installed is at hand
		}
		for _, unit := range masked {
			err = errors.Join(err, os.Symlink("/dev/null", filepath.Join(into, unit)))
		}
	}
	return where, args, err
}

// oldVar is the partition that an earlier boot made /var on the disk; empty where there
// is none. A disk by another name than the kernel's is known later alone: then it is any
// such partition.
func oldVar(disk string, d *drivers) string {
	limit := diskLimit
	if strings.HasPrefix(disk, "/dev/disk/") {
		limit = 5 * time.Second
	}
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) { // time.Now: a deadline, no image content
		d.coldplug()
		parts := partitions("/sys/class/block", "/dev")
		_, err := os.Stat(disk)
		dev := parts.labelled(VarLabel, filepath.Base(disk))
		if err == nil || dev != "" || time.Now().After(end) {
			return dev
		}
	}
}

const varInMemory = `[Unit]
Description=State of the node, in memory
DefaultDependencies=no
Before=local-fs.target umount.target
Conflicts=umount.target

[Mount]
What=tmpfs
Where=/var
Type=tmpfs
Options=mode=0755,size=80%
`

// varOnDisk lets the state be made where the operator says: there is no disk of the root's.
const varOnDisk = `[Service]
ExecStart=
ExecStart=/bin/sh -c 'for i in $(seq 600); do test -b @DISK@ && exec /usr/bin/systemd-repart --dry-run=no --empty=allow @DISK@; sleep 0.1; done; echo no disk @DISK@ >&2; exit 1'
`
