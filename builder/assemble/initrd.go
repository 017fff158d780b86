package assemble

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/ramdisk"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// alwaysModules are loaded on every machine: what the root file system stands on.
var alwaysModules = []string{"dm_verity", "erofs", "overlay", "ext4"}

// storageModules are loaded where the machine has the device. What the kernel
// package does not have (the cloud kernel has few) is left out.
var storageModules = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_rng", "nvme", "ahci", "ata_piix", "sd_mod", "sr_mod",
	"xen_blkfront", "xen_scsifront", "hv_vmbus", "hv_storvsc", "vmw_pvscsi", "mptspi", "mptsas", "pci_hyperv",
	"megaraid_sas", "mpt3sas", "aacraid", "hpsa", "smartpqi", "mpi3mr", "3w_9xxx", "isci", "mmc_block", "sdhci_pci",
	"xhci_pci", "ehci_pci", "uas", "usb_storage", "vmd", "gve",
}

// Modules names what an initrd takes where the kernel has it, besides what that depends on.
func Modules() []string { return append(slices.Clone(alwaysModules), storageModules...) }

// Initrd packs the initial RAM disk (cpio newc, zstd) for the kernel release in
// the tree: the given init, the storage drivers with what they depend on, and
// their aliases.
func Initrd(root *tree.Tree, release string, init []byte) ([]byte, error) {
	k := kernel{root: root, dir: path.Join("usr/lib/modules", release)}
	if err := k.read(); err != nil {
		return nil, err
	}
	for _, name := range alwaysModules {
		if !k.has(name) {
			return nil, fmt.Errorf("kernel %s has no module %s, which every node needs to find its root", release, name)
		}
	}
	order, err := k.closure(Modules())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, err
	}
	if err := k.pack(z, order, init); err != nil {
		return nil, fmt.Errorf("packing the initrd: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// kernel is one kernel release's module folder, as depmod(8) left it.
type kernel struct {
	root    *tree.Tree
	dir     string
	files   map[string]string   // module → file below dir
	deps    map[string][]string // module → modules
	builtin map[string]bool
	aliases map[string][]string // name without a pattern → modules
}

func (k *kernel) read() error {
	k.files, k.deps, k.builtin, k.aliases = map[string]string{}, map[string][]string{}, map[string]bool{}, map[string][]string{}
	dep, err := k.root.ReadFile(path.Join(k.dir, "modules.dep"))
	if err != nil {
		return fmt.Errorf("reading kernel modules: %w", err)
	}
	for line := range strings.Lines(string(dep)) {
		file, rest, _ := strings.Cut(line, ":")
		name := moduleName(file)
		k.files[name] = file
		for d := range strings.FieldsSeq(rest) {
			k.deps[name] = append(k.deps[name], moduleName(d))
		}
	}
	built, err := k.root.ReadFile(path.Join(k.dir, "modules.builtin"))
	if err != nil {
		return fmt.Errorf("reading kernel modules: %w", err)
	}
	for line := range strings.Lines(string(built)) {
		k.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	aliases, err := k.root.ReadFile(path.Join(k.dir, "modules.alias"))
	if err != nil {
		return fmt.Errorf("reading kernel modules: %w", err)
	}
	for line := range strings.Lines(string(aliases)) {
		if words := strings.Fields(line); len(words) == 3 && !strings.ContainsAny(words[1], "*?[:") {
			name := moduleName(words[1])
			k.aliases[name] = append(k.aliases[name], words[2])
		}
	}
	return nil
}

// named are the modules that a soft dependency means: a module's name, or an alias. Of
// several for a cipher or checksum it is the generic one, which every processor can run.
func (k *kernel) named(name string) []string {
	modules := k.aliases[name]
	if k.has(name) || len(modules) == 0 {
		return []string{name}
	}
	if i := slices.IndexFunc(modules, func(m string) bool { return strings.HasSuffix(m, "_generic") }); i >= 0 {
		return modules[i : i+1]
	}
	return modules
}

func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

func (k *kernel) has(name string) bool { return k.builtin[name] || k.files[name] != "" }

// closure lists the loadable ones of the wanted modules and all that they need,
// soft dependencies of the checksum kind included, sorted by name.
func (k *kernel) closure(want []string) ([]string, error) {
	found := map[string]bool{}
	for len(want) > 0 {
		name := want[0]
		want = want[1:]
		if found[name] || k.files[name] == "" {
			continue
		}
		found[name] = true
		want = append(want, k.deps[name]...)
		soft, err := k.softdeps(name)
		if err != nil {
			return nil, err
		}
		want = append(want, soft...)
	}
	var order []string
	for name := range found {
		order = append(order, name)
	}
	slices.Sort(order)
	return order, nil
}

// softdeps reads modules.softdep, where ext4 names crc32c and the like.
func (k *kernel) softdeps(name string) ([]string, error) {
	raw, err := k.root.ReadFile(path.Join(k.dir, "modules.softdep"))
	if err != nil {
		return nil, fmt.Errorf("reading kernel modules: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "softdep" || strings.ReplaceAll(words[1], "-", "_") != name {
			continue
		}
		for _, w := range words[2:] {
			if !strings.HasSuffix(w, ":") {
				out = append(out, k.named(strings.ReplaceAll(w, "-", "_"))...)
			}
		}
	}
	return out, nil
}

func (k *kernel) pack(w io.Writer, order []string, init []byte) error {
	var list, aliases strings.Builder
	in := map[string]bool{}
	for _, name := range order {
		in[name] = true
		mark := ""
		if slices.Contains(alwaysModules, name) {
			mark = "!"
		}
		deps, err := k.softdeps(name)
		if err != nil {
			return err
		}
		words := []string{mark + name, path.Join("lib/modules", path.Base(k.files[name]))}
		for _, d := range append(deps, k.deps[name]...) {
			if k.files[d] != "" && d != name {
				words = append(words, d)
			}
		}
		list.WriteString(strings.Join(words, " ") + "\n")
	}
	all, err := k.root.ReadFile(path.Join(k.dir, "modules.alias"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(all)) {
		if words := strings.Fields(line); len(words) == 3 && in[words[2]] {
			aliases.WriteString(line)
		}
	}
	c := &netboot.Archive{W: cpio.NewWriter(w)}
	c.File("init", 0o755, init)
	for _, dir := range []string{"dev", "proc", "sys", "run", "sysroot"} {
		c.Folder(dir)
	}
	c.Folder(path.Dir(ramdisk.ModuleList))
	c.File(ramdisk.ModuleList, 0o644, []byte(list.String()))
	c.File(ramdisk.AliasList, 0o644, []byte(aliases.String()))
	c.Folder("lib")
	c.Folder("lib/modules")
	for _, name := range order {
		data, err := k.root.ReadFile(path.Join(k.dir, k.files[name]))
		if err != nil {
			return err
		}
		c.File(path.Join("lib/modules", path.Base(k.files[name])), 0o644, data)
	}
	return c.Close()
}
