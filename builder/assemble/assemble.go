// Package assemble turns a node's tree into what firmware and kernel read: the
// sealed root file system with its verity tree, the unified kernel image whose
// command line carries the root hash, and the disk that holds both. The order is
// forced: root → root hash → UKI → disk. It knows no output formats.
package assemble

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/erofs"
	fat "github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/pe"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
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

// Sealed is a root file system with its hash tree, in place on the disk that is to
// be, and the RAM disk that will open it.
type Sealed struct {
	disk             *sparse.Poured
	later            []sparse.Later // of the root file system
	path             string
	dataAt, dataSize int64
	treeAt, treeSize int64
	hash             []byte
	initrd           []byte
}

// RootHash is dm-verity's, in hex.
func (s *Sealed) RootHash() string { return hex.EncodeToString(s.hash) }

// Disk is the disk that is to be. What lies in the cache is still being written to it,
// for who reads it by this.
func (s *Sealed) Disk() *sparse.Poured { return s.disk }

// Seal begins the disk in the scratch folder dir. The root file system is written
// where it stays, so that no byte of it is copied; ctx is that of its Disk, too, which
// the caller closes.
func Seal(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, init []byte, dir string, cache *store.Store) (*Sealed, error) {
	s := &Sealed{path: filepath.Join(dir, "disk.raw"), dataAt: mib + p.Disk.ESPSize + biosSize(p)}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	group, sub := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		s.initrd, err = Initrd(root, k.Release, init)
		return err
	})
	group.Go(func() error { return s.write(sub, p.ID, root, f, cache) })
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("sealing the root file system: %w", errors.Join(err, f.Close()))
	}
	s.disk = sparse.Pour(ctx, f, s.later)
	return s, nil
}

// write puts the root file system at dataAt, but for what is to come later, and its hash
// tree behind it; UUIDs follow from id.
func (s *Sealed) write(ctx context.Context, id string, root *tree.Tree, f *os.File, cache *store.Store) error {
	known := &digests{}
	defer func() { known.close() }()
	group, sub := errgroup.WithContext(ctx)
	group.Go(func() error {
		d, err := blocks(sub, cache, root)
		if err == nil {
			known = d
		}
		return err
	})
	group.Go(func() (err error) {
		s.dataSize, err = erofs.Write(sub, f, root, erofs.Options{UUID: repro.UUID("erofs", id), Epoch: repro.DefaultEpoch, At: s.dataAt,
			Later: func(at int64, c tree.Content) bool {
				_, ok := c.(tree.Section) // as in blocks
				if ok {
					s.later = append(s.later, sparse.Later{At: s.dataAt + at, Content: c})
				}
				return ok
			}})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	hashes := verity.New(ctx, io.NewSectionReader(f, s.dataAt, math.MaxInt64-s.dataAt), salt[:])
	for _, l := range s.later {
		hashes.Know(l.At-s.dataAt, known.of[l.Content.(tree.Section)])
	}
	s.treeAt = s.dataAt + align(s.dataSize)
	made, err := hashes.Write(io.NewOffsetWriter(f, s.treeAt), s.dataSize, repro.UUID("verity", id))
	s.hash, s.treeSize = made.RootHash, made.HashSize
	return err
}

// Build assembles the rest of the disk around a sealed root: the UKI, which bears
// its hash, the EFI system partition and the partition table.
func Build(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, s *Sealed) (*Disk, error) {
	d := &Disk{Path: s.path, UKI: "EFI/Linux/" + ukiName(p), RootHash: hex.EncodeToString(s.hash)}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0) // #nosec G304 -- our own scratch file
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // the output that is made of it is synced
	uki, err := unify(p, root, k, s.initrd, s.hash)
	if err != nil {
		return nil, fmt.Errorf("assembling the unified kernel image: %w", err)
	}
	if err := d.write(ctx, p, root, f, s, uki); err != nil {
		return nil, fmt.Errorf("writing the disk: %w", err)
	}
	return d, nil
}

// ukiName has no boot counter ("+3", systemd's Automatic Boot Assessment) yet: the
// disk has one slot, so there is nothing to fall back to when the tries are used up.
func ukiName(p *plan.Plan) string {
	return fmt.Sprintf("imgbuild-%s_%s.efi", p.Role, rootfs.Version(p))
}

// bootPrograms is where the base has systemd's for UEFI.
const bootPrograms = "usr/lib/systemd/boot/efi/"

// unify assembles the UKI (UAPI Unified Kernel Image specification) around the
// stub of the base's own systemd. More is what its command line has beyond the plan's.
func unify(p *plan.Plan, root *tree.Tree, k rootfs.Kernel, initrd, hash []byte, more ...string) ([]byte, error) {
	stub, sections, err := parts(p, root, k, hash, more...)
	if err != nil {
		return nil, err
	}
	return pe.UKI(stub, append(sections, pe.Section{Name: netboot.Section, Data: initrd}))
}

// parts are the stub, and all sections of the UKI but the initrd.
func parts(p *plan.Plan, root *tree.Tree, k rootfs.Kernel, hash []byte, more ...string) (stub []byte, sections []pe.Section, err error) {
	names, err := arch.Of(p.Arch)
	if err != nil {
		return nil, nil, err
	}
	if stub, err = root.ReadFile(bootPrograms + "linux" + names.EFI + ".efi.stub"); err != nil {
		return nil, nil, fmt.Errorf("%w: the base needs the package systemd-boot-efi", err)
	}
	osrel, err := root.ReadFile("usr/lib/os-release")
	if err != nil {
		return nil, nil, err
	}
	image, err := k.Image.Open()
	if err != nil {
		return nil, nil, err
	}
	defer image.Close() //nolint:errcheck // read only
	linux, err := io.ReadAll(image)
	if err != nil {
		return nil, nil, err
	}
	words := slices.Concat([]string{"roothash=" + hex.EncodeToString(hash)}, p.Cmdline, more)
	return stub, []pe.Section{
		{Name: ".osrel", Data: osrel},
		{Name: ".cmdline", Data: []byte(strings.Join(words, " "))},
		{Name: ".uname", Data: []byte(k.Release)},
		{Name: ".linux", Data: linux},
	}, nil
}

// write lays out the GPT disk (Discoverable Partitions Specification). The image
// carries no empty space for what first boot adds.
func (d *Disk) write(ctx context.Context, p *plan.Plan, root *tree.Tree, f *os.File, s *Sealed, uki []byte) error {
	files, err := bootFiles(root, p.Arch, d.UKI, uki)
	if err != nil {
		return err
	}
	before := []gpt.Partition{{Name: "imgbuild-esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("esp", p.ID).String(), Start: mib, Size: p.Disk.ESPSize}}
	if p.Disk.BIOS {
		before = append(before, biosPartition(p))
		commands, err := biosCommands(d.UKI, uki)
		if err != nil {
			return err
		}
		files[biosConfig] = tree.Bytes(commands)
	}
	if d.Size, err = s.table(f, repro.UUID("disk", p.ID).String(), p.Arch, p.Disk.RootName, p.Disk.TreeName, before...); err != nil {
		return err
	}
	if p.Disk.BIOS {
		if err := writeBIOS(f, root, biosPartition(p).Start); err != nil {
			return err
		}
	}
	return fat.Write(ctx, f, mib, p.Disk.ESPSize, files, espOptions("esp", p.ID))
}

// bootFiles are what lies in an EFI system partition: the boot loader, and the UKI by its name.
func bootFiles(root *tree.Tree, processor, name string, uki []byte) (map[string]tree.Content, error) {
	names, err := arch.Of(processor)
	if err != nil {
		return nil, err
	}
	loader := "systemd-boot" + names.EFI + ".efi"
	boot, err := root.ReadFile(bootPrograms + loader)
	return map[string]tree.Content{
		names.Loader():          tree.Bytes(boot),
		"EFI/systemd/" + loader: tree.Bytes(boot),
		"loader/loader.conf":    tree.Bytes("timeout 0\nconsole-mode keep\neditor no\nrandom-seed-mode off\n"),
		name:                    tree.Bytes(uki),
	}, err
}

func espOptions(words ...string) fat.Options {
	return fat.Options{Label: "ESP", VolumeID: id32(words...), Epoch: repro.DefaultEpoch, Folders: []string{"loader/credentials"}}
}

// table writes the partition table, with the root and its tree behind what is before
// them, and gives the disk its size.
func (s *Sealed) table(f *os.File, guid, arch, rootName, treeName string, before ...gpt.Partition) (size int64, err error) {
	rootID, treeID, err := gpt.VerityGUIDs(s.hash)
	if err != nil {
		return 0, err
	}
	rootType, treeType, err := gpt.RootTypes(arch)
	if err != nil {
		return 0, err
	}
	end := s.treeAt + align(s.treeSize)
	size = end + mib // room for the second GPT header
	if err := f.Truncate(size); err != nil {
		return 0, err
	}
	return size, gpt.Write(f, gpt.Table{GUID: guid, Partitions: append(before,
		gpt.Partition{Name: rootName, TypeGUID: rootType, GUID: rootID, Start: s.dataAt, Size: s.treeAt - s.dataAt, Attrs: gpt.AttrReadOnly},
		gpt.Partition{Name: treeName, TypeGUID: treeType, GUID: treeID, Start: s.treeAt, Size: end - s.treeAt, Attrs: gpt.AttrReadOnly})})
}

// id32 derives a 32-bit volume number.
func id32(words ...string) uint32 {
	id := repro.UUID(words...)
	return binary.BigEndian.Uint32(id[:4])
}

func align(n int64) int64 { return (n + mib - 1) / mib * mib }
