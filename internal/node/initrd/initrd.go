//go:build linux

// Package initrd is the first program that runs on a node: the init of the
// initial RAM disk inside the UKI. It loads the storage drivers that the
// machine asks for, opens the root file system through dm-verity by the root
// hash on the kernel command line, puts a volatile overlay over /etc, brings the
// machine id back from /var, and hands over to systemd.
//
// The partitions are found as the Discoverable Partitions Specification says:
// the first half of the root hash is the root partition's UUID, the second half
// the verity partition's. Where the RAM disk carries the root itself (package
// internal/netboot), no disk is looked for; on a medium that nodes are installed from
// (package internal/medium), the root is in the image there. It is not a general initrd: no LUKS, LVM
// or network.
package initrd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/medium"
)

// VarLabel is the GPT name of the partition that becomes /var.
const VarLabel = "imgbuild-var"

// StateDir is where, on the /var partition, the parts of /etc that live on lie.
const StateDir = "lib/imgbuild/etc"

const (
	newRoot   = "/sysroot"
	etcUpper  = "/run/imgbuild/etc/upper"
	etcWork   = "/run/imgbuild/etc/work"
	diskLimit = 60 * time.Second
)

// Run brings the root file system up and replaces itself by systemd. It only
// returns with an error, which names what it waited for.
func Run() error {
	if err := mountBasics(); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("reading the kernel command line: %w", err)
	}
	hash, err := rootHash(string(line))
	if err != nil {
		return err
	}
	drivers, err := loadDrivers("/")
	if err != nil {
		return err
	}
	alone, installs := inMemory(), slices.Contains(strings.Fields(string(line)), medium.Word)
	var root, tree string
	switch {
	case alone:
		root, tree, err = memoryRoot()
	case installs:
		root, tree, err = mediumRoot(hash, drivers)
	default:
		root, tree, err = waitForRoot(hash, drivers)
	}
	if err != nil {
		return err
	}
	device, err := openVerity("root", root, tree, hash)
	if err != nil {
		return err
	}
	if err := mount(device, newRoot, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mounting the root file system: %w", err)
	}
	if err := overlayEtc(); err != nil {
		return err
	}
	if err := handOn(fromStub, toSystem); err != nil {
		Log("credentials of the EFI system partition: %v", err)
	}
	state := partitions("/sys/class/block", "/dev").sibling(root, VarLabel)
	var args []string
	if alone || installs {
		where, more, err := withoutDisk(toSystem, units, installs)
		if err != nil {
			return err
		}
		if args = more; where != memory {
			state = oldVar(where, drivers)
		}
	}
	if err := restoreMachineID(state); err != nil {
		Log("machine id: %v; systemd will make a new one", err)
	}
	return switchRoot(systemdPath, args...)
}

// Log writes one line to the kernel log, which the console shows.
func Log(format string, args ...any) {
	line := "<5>imgbuild-initrd: " + fmt.Sprintf(format, args...) + "\n"
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString(line)
		_ = f.Close()
	}
}

// Fail says on the console why the machine cannot boot, leaves time to read it,
// and reboots, so that boot counting can fall back to another entry.
func Fail(err error) {
	Log("cannot boot: %v; rebooting in 15 seconds", err)
	time.Sleep(15 * time.Second)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func mountBasics() error {
	for _, m := range []struct {
		source, target, fstype, data string
		flags                        uintptr
	}{
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
		{"tmpfs", "/run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s (%s) on %s: %w", source, fstype, target, err)
	}
	return nil
}

func rootHash(cmdline string) ([]byte, error) {
	for word := range strings.FieldsSeq(cmdline) {
		if value, ok := strings.CutPrefix(word, "roothash="); ok {
			hash, err := hex.DecodeString(value)
			if err != nil || len(hash) != 32 {
				return nil, fmt.Errorf("kernel command line: roothash=%s: want 64 hex digits", value)
			}
			return hash, nil
		}
	}
	return nil, errors.New("kernel command line: no roothash=")
}

// waitForRoot looks for the two partitions until they are there or a minute is
// over, loading drivers for devices that come up in between.
func waitForRoot(hash []byte, d *drivers) (root, tree string, err error) {
	rootUUID, treeUUID := uuidOf(hash[:16]), uuidOf(hash[16:])
	for end := time.Now().Add(diskLimit); ; time.Sleep(20 * time.Millisecond) { // time.Now: a deadline, no image content
		d.coldplug()
		parts := partitions("/sys/class/block", "/dev")
		root, tree = parts.byUUID(rootUUID), parts.byUUID(treeUUID)
		if root != "" && tree != "" {
			return root, tree, nil
		}
		if time.Now().After(end) {
			return "", "", fmt.Errorf("no disk with the partitions %s (root, found %q) and %s (verity, found %q) within %v; disks seen: %s",
				rootUUID, root, treeUUID, tree, diskLimit, strings.Join(parts.disks(), " "))
		}
	}
}

func overlayEtc() error {
	for _, dir := range []string{etcUpper, etcWork} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("preparing the overlay of /etc: %w", err)
		}
	}
	lower := filepath.Join(newRoot, "etc")
	return mount("etc", lower, "overlay", 0, "lowerdir="+lower+",upperdir="+etcUpper+",workdir="+etcWork)
}

// restoreMachineID copies the machine id from the /var partition dev. A machine
// without one has not booted before.
func restoreMachineID(dev string) error {
	if dev == "" {
		return nil
	}
	const dir = "/var-state"
	if err := mount(dev, dir, "ext4", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return err
	}
	defer unix.Unmount(dir, 0) //nolint:errcheck // read-only, and the RAM disk goes away
	id, err := readMachineID(filepath.Join(dir, StateDir, "machine-id"))
	if err != nil || id == "" {
		return err
	}
	return os.WriteFile(filepath.Join(newRoot, "etc/machine-id"), []byte(id+"\n"), 0o444) // #nosec G306 -- machine-id(5): world-readable
}

// readMachineID reads what the agent kept; empty when the node has not got that far.
func readMachineID(file string) (string, error) {
	raw, err := os.ReadFile(file) // #nosec G304 -- a fixed place on the /var partition
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	id := strings.TrimSpace(string(raw))
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return "", errors.New("the machine id kept on the /var partition is damaged: want 32 hex digits")
	}
	return id, nil
}
