//go:build linux

package initrd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/go-dmverity/pkg/dm"
	"github.com/containerd/go-dmverity/pkg/verity"
)

// openVerity maps data through dm-verity and returns the mapped device's path.
// A block that does not match the tree stops the kernel (panic_on_corruption):
// a node must never run on bytes that nobody vouched for.
func openVerity(name, data, tree string, hash []byte) (string, error) {
	f, err := os.Open(tree) // #nosec G304 -- a block device found by its UUID
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	super, err := verity.ReadSuperblock(f, 0)
	if err != nil {
		return "", fmt.Errorf("reading the verity superblock on %s: %w", tree, err)
	}
	params, err := dm.BuildTargetParams(dm.OpenArgs{
		Version: super.HashType, DataDevice: data, HashDevice: tree,
		DataBlockSize: super.DataBlockSize, HashBlockSize: super.HashBlockSize, DataBlocks: super.DataBlocks,
		HashName: strings.TrimRight(string(super.Algorithm[:]), "\x00"), RootDigest: hash,
		Salt: super.Salt[:super.SaltSize], HashStartBytes: uint64(super.HashBlockSize),
		Flags: []string{"panic_on_corruption"},
	})
	if err != nil {
		return "", fmt.Errorf("verity table: %w", err)
	}
	return mapped(name, super.DataBlocks*uint64(super.DataBlockSize)/512, "verity", params)
}

// mapped makes a read-only device of device-mapper's, of so many sectors of 512 bytes, and
// returns its path.
func mapped(name string, sectors uint64, target, params string) (string, error) {
	ctl, err := dm.Open()
	if err != nil {
		return "", err
	}
	defer ctl.Close() //nolint:errcheck // nothing was written through it that Close could lose
	if _, err := ctl.CreateDevice(name); err != nil {
		return "", err
	}
	if err := ctl.LoadTable(name, []dm.Target{{SectorStart: 0, Length: sectors, Type: target, Params: params}}); err != nil {
		return "", fmt.Errorf("device-mapper refuses %s as %s: %w", name, target, err)
	}
	if err := ctl.SuspendDevice(name, false); err != nil {
		return "", err
	}
	names, _ := filepath.Glob("/sys/class/block/dm-*/dm/name")
	for _, file := range names {
		if got, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(got)) == name { // #nosec G304 -- sysfs
			return "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("device-mapper made %q but /sys does not show it", name)
}
