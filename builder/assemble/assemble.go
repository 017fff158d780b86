// Package assemble turns a node's tree into what firmware and kernel read: the
// sealed root file system with its verity tree, the unified kernel image whose
// command line carries the root hash, and the disk that holds both. The order is
// forced: root → root hash → UKI → disk. It knows no output formats.
package assemble

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/internal/erofs"
	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/pe"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/internal/verity"
)

const mib = 1 << 20

// Disk is an assembled disk image: Path is a sparse raw file in the scratch
// folder that was given.
type Disk struct {
	Path     string
	Size     int64
	RootHash string // hex
	UKI      string // the UKI's path in the ESP
}

// sealedRoot is the root file system with its hash tree, in two files.
type sealedRoot struct {
	data, tree         string
	dataSize, treeSize int64
	hash               []byte
}

// Build assembles the disk in the scratch folder dir.
func Build(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, init []byte, dir string) (*Disk, error) {
	sealed, err := seal(ctx, p, root, dir)
	if err != nil {
		return nil, fmt.Errorf("sealing the root file system: %w", err)
	}
	uki, err := unify(p, root, k, init, sealed.hash)
	if err != nil {
		return nil, fmt.Errorf("assembling the unified kernel image: %w", err)
	}
	d := &Disk{Path: filepath.Join(dir, "disk.raw"), RootHash: hex.EncodeToString(sealed.hash), UKI: "EFI/Linux/" + ukiName(p)}
	if err := d.write(ctx, p, root, sealed, uki); err != nil {
		return nil, fmt.Errorf("writing the disk: %w", err)
	}
	return d, errors.Join(os.Remove(sealed.data), os.Remove(sealed.tree))
}

// ukiName has no boot counter ("+3", systemd's Automatic Boot Assessment) yet: the
// disk has one slot, so there is nothing to fall back to when the tries are used up.
func ukiName(p *plan.Plan) string {
	return fmt.Sprintf("imgbuild-%s_%s.efi", p.Role, rootfs.Version(p))
}

func seal(ctx context.Context, p *plan.Plan, root *tree.Tree, dir string) (*sealedRoot, error) {
	s := &sealedRoot{data: filepath.Join(dir, "root.erofs"), tree: filepath.Join(dir, "root.verity")}
	f, err := os.OpenFile(s.data, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	s.dataSize, err = erofs.Write(ctx, f, root, erofs.Options{UUID: repro.UUID("erofs", p.ID), Epoch: repro.DefaultEpoch})
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	salt := sha256.Sum256([]byte("imgbuild verity salt " + p.ID))
	made, err := verity.Create(s.data, s.tree, salt[:], repro.UUID("verity", p.ID))
	s.hash, s.treeSize = made.RootHash, made.HashSize
	return s, err
}

// unify assembles the UKI (UAPI Unified Kernel Image specification) around the
// stub of the base's own systemd.
func unify(p *plan.Plan, root *tree.Tree, k rootfs.Kernel, init, hash []byte) ([]byte, error) {
	stub, err := root.ReadFile("usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	if err != nil {
		return nil, fmt.Errorf("%w: the base needs the package systemd-boot-efi", err)
	}
	osrel, err := root.ReadFile("usr/lib/os-release")
	if err != nil {
		return nil, err
	}
	image, err := k.Image.Open()
	if err != nil {
		return nil, err
	}
	defer image.Close() //nolint:errcheck // read only
	linux, err := io.ReadAll(image)
	if err != nil {
		return nil, err
	}
	initrd, err := Initrd(root, k.Release, init)
	if err != nil {
		return nil, err
	}
	words := append([]string{"roothash=" + hex.EncodeToString(hash)}, p.Cmdline...)
	return pe.UKI(stub, []pe.Section{
		{Name: ".osrel", Data: osrel},
		{Name: ".cmdline", Data: []byte(strings.Join(words, " "))},
		{Name: ".uname", Data: []byte(k.Release)},
		{Name: ".initrd", Data: initrd},
		{Name: ".linux", Data: linux},
	})
}

// write lays out the GPT disk (Discoverable Partitions Specification). The image
// carries no empty space for what first boot adds.
func (d *Disk) write(ctx context.Context, p *plan.Plan, root *tree.Tree, s *sealedRoot, uki []byte) error {
	boot, err := root.ReadFile("usr/lib/systemd/boot/efi/systemd-bootx64.efi")
	if err != nil {
		return err
	}
	rootID, treeID, err := gpt.VerityGUIDs(s.hash)
	if err != nil {
		return err
	}
	rootType, treeType, err := gpt.RootTypes(p.Arch)
	if err != nil {
		return err
	}
	rootStart := int64(mib) + p.Disk.ESPSize
	treeStart := rootStart + align(s.dataSize)
	end := treeStart + align(s.treeSize)
	d.Size = end + mib // room for the second GPT header
	f, err := os.OpenFile(d.Path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the last write is synced below
	if err := f.Truncate(d.Size); err != nil {
		return err
	}
	table := gpt.Table{GUID: repro.UUID("disk", p.ID).String(), Partitions: []gpt.Partition{
		{Name: "imgbuild-esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("esp", p.ID).String(), Start: mib, Size: p.Disk.ESPSize},
		{Name: p.Disk.RootName, TypeGUID: rootType, GUID: rootID, Start: rootStart, Size: treeStart - rootStart, Attrs: gpt.AttrReadOnly},
		{Name: p.Disk.TreeName, TypeGUID: treeType, GUID: treeID, Start: treeStart, Size: end - treeStart, Attrs: gpt.AttrReadOnly},
	}}
	if err := gpt.Write(f, table); err != nil {
		return err
	}
	files := map[string]tree.Content{
		"EFI/BOOT/BOOTX64.EFI":            tree.Bytes(boot),
		"EFI/systemd/systemd-bootx64.efi": tree.Bytes(boot),
		"loader/loader.conf":              tree.Bytes("timeout 0\nconsole-mode keep\neditor no\nrandom-seed-mode off\n"),
		d.UKI:                             tree.Bytes(uki),
	}
	if err := esp.Write(ctx, f, mib, p.Disk.ESPSize, files, esp.Options{Label: "ESP", VolumeID: id32("esp", p.ID), Epoch: repro.DefaultEpoch}); err != nil {
		return err
	}
	for _, part := range []struct {
		file string
		at   int64
	}{{s.data, rootStart}, {s.tree, treeStart}} {
		if err := copyAt(ctx, f, part.at, part.file); err != nil {
			return err
		}
	}
	return nil
}

// id32 derives a 32-bit volume number.
func id32(words ...string) uint32 {
	id := repro.UUID(words...)
	return binary.BigEndian.Uint32(id[:4])
}

func align(n int64) int64 { return (n + mib - 1) / mib * mib }

// copyAt copies a whole file into f at an offset; the kernel shares the blocks
// where the file system can.
func copyAt(ctx context.Context, f *os.File, at int64, file string) error {
	src, err := os.Open(file) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return err
	}
	for {
		n, err := io.CopyN(f, src, 256*mib)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || n == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
