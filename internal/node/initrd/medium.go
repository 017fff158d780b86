//go:build linux

package initrd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/medium"
)

// found is an image on a medium: where it is on the device, and its root and hash tree.
type found struct {
	device            string
	image, root, tree extent // bytes from the device's beginning
}

// mediumRoot looks for the medium that the machine booted from, until it is there or a minute is
// over, and makes devices of the root and its hash tree in the image on it, and of the image.
func mediumRoot(hash []byte, d *drivers) (root, tree string, err error) {
	for end := time.Now().Add(diskLimit); ; time.Sleep(100 * time.Millisecond) { // time.Now: a deadline, no image content
		d.coldplug()
		disks := partitions("/sys/class/block", "/dev").disks()
		for _, name := range disks {
			if m, ok := onMedium(filepath.Join("/dev", name), hash); ok {
				return m.devices()
			}
		}
		if time.Now().After(end) {
			return "", "", fmt.Errorf("no medium with the root %x on it within %v (a stick needs base.kernel=generic); disks seen: %s", hash, diskLimit, strings.Join(disks, " "))
		}
	}
}

// onMedium looks for an image with that root hash on a device: a partition with a table of its
// own, two of whose partitions have the halves of the hash as their UUIDs. A CD's partitions
// are nothing to the kernel, which is why its device is read.
func onMedium(device string, hash []byte) (m found, ok bool) {
	f, err := os.Open(device) // #nosec G304 -- a block device that the kernel named
	if err != nil {
		return m, false
	}
	defer f.Close() //nolint:errcheck // read only
	return imageOn(f, device, hash)
}

func imageOn(f io.ReaderAt, device string, hash []byte) (m found, ok bool) {
	rootUUID, treeUUID := uuidOf(hash[:16]), uuidOf(hash[16:])
	for _, outer := range entries(f, 0) {
		if outer.start <= 0 || outer.size <= 0 {
			continue
		}
		m = found{device: device, image: outer}
		for _, inner := range entries(f, outer.start) {
			if inner.start <= 0 || inner.size <= 0 || inner.start > outer.size-inner.size {
				continue
			}
			inner.start += outer.start
			switch inner.uuid {
			case rootUUID:
				m.root = inner
			case treeUUID:
				m.tree = inner
			}
		}
		if m.root.size > 0 && m.tree.size > 0 {
			return m, true
		}
	}
	return m, false
}

// devices makes the three devices. What they lie on is theirs: nobody else can open it to write.
func (m found) devices() (root, tree string, err error) {
	linear := func(name string, e extent) string {
		dev, lerr := mapped(name, uint64(e.size/512), "linear", fmt.Sprintf("%s %d", m.device, e.start/512)) // #nosec G115 -- checked positive
		err = errors.Join(err, lerr)
		return dev
	}
	image := linear("medium", m.image)
	root, tree = linear("medium-root", m.root), linear("medium-verity", m.tree)
	if err != nil {
		return "", "", fmt.Errorf("the image on %s: %w", m.device, err)
	}
	return root, tree, errors.Join(
		os.MkdirAll(filepath.Dir(medium.Image), 0o755),
		os.Symlink(image, medium.Image),
		os.Symlink(m.device, medium.Device))
}
