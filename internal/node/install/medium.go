package install

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/imgbuild/imgbuild/internal/medium"
)

// onMedium says whether the machine booted from a medium that has an image.
func (a *Installer) onMedium() bool {
	_, err := os.Lstat(filepath.Join(a.Root, medium.Image))
	return err == nil
}

// guide says on a medium without an order what to do, and which disks there are.
func (a *Installer) guide() {
	a.tell("this install medium was not told which disk to write: nothing is written. Tell a copy of it, and boot that:")
	a.tell("  imgbuild stamp NODE.iso -o COPY.iso --config NODE.yaml --disk DISK")
	for _, line := range a.disks() {
		a.tell("a disk of this machine: %s", line)
	}
}

// disks are the machine's own disks, with their lasting names.
func (a *Installer) disks() (out []string) {
	names := map[string][]string{}
	links, _ := filepath.Glob(filepath.Join(a.Root, "dev/disk/by-id/*"))
	for _, link := range links {
		names[a.whole(strings.TrimPrefix(link, a.Root))] = append(names[a.whole(strings.TrimPrefix(link, a.Root))], strings.TrimPrefix(link, a.Root))
	}
	devices, _ := filepath.Glob(filepath.Join(a.Root, "sys/class/block/*"))
	slices.Sort(devices)
	for _, dir := range devices {
		name := filepath.Base(dir)
		text, _ := os.ReadFile(filepath.Join(dir, "size")) // #nosec G304 -- sysfs
		sectors, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		_, err := os.Stat(filepath.Join(dir, "device")) // what has none is made of others: loop, dm, md
		if err != nil || sectors == 0 || strings.HasPrefix(name, "sr") || name == a.whole(medium.Device) {
			continue
		}
		lasting := slices.DeleteFunc(names[name], func(s string) bool { return strings.Contains(s, "-part") })
		out = append(out, strings.Join(append([]string{fmt.Sprintf("/dev/%s, %d MiB", name, sectors>>11)}, lasting...), ", "))
	}
	return out
}

// whole is the kernel's name of the disk that a device is, or is a partition of.
func (a *Installer) whole(device string) string {
	device, err := filepath.EvalSymlinks(filepath.Join(a.Root, device))
	if err != nil {
		return ""
	}
	name := filepath.Base(device)
	dir := filepath.Join(a.Root, "sys/class/block", name)
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		if dir, err = filepath.EvalSymlinks(dir); err == nil {
			return filepath.Base(filepath.Dir(dir))
		}
	}
	return name
}

// mayWrite refuses the medium itself. A disk that has this image already is left alone, for a
// machine whose firmware tries the medium first would lose its state at each boot.
func (a *Installer) mayWrite(in Order) (bool, error) {
	if !a.onMedium() {
		return false, fmt.Errorf("the credential %s: no URL, and no medium", OrderCredential)
	}
	if disk := a.whole(in.Disk); disk == "" || disk == a.whole(medium.Device) {
		return false, fmt.Errorf("%s is the medium that this machine booted from: name another disk", in.Disk)
	}
	have, err1 := a.diskID(in.Disk)
	image, err2 := a.diskID(medium.Image)
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	if !in.Again && len(have) > 0 && bytes.Equal(have, image) {
		a.tell("%s has this image already: nothing is written. Take the medium out and boot the disk; to install it anew, stamp a copy with --again", in.Disk)
		return false, nil
	}
	return true, nil
}

// diskID is the GUID in the header of a disk's partition table (UEFI specification, section
// 5.3.2); empty where there is none.
func (a *Installer) diskID(device string) ([]byte, error) {
	head, err := a.readDisk(device, 512, 512)
	if err != nil || !bytes.HasPrefix(head, []byte("EFI PART")) {
		return nil, err
	}
	return head[56:72], nil
}

func (a *Installer) readDisk(device string, at int64, size int) ([]byte, error) {
	f, err := os.Open(filepath.Join(a.Root, device)) // #nosec G304 -- a device of the machine's
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b := make([]byte, size)
	_, err = f.ReadAt(b, at)
	return b, err
}
