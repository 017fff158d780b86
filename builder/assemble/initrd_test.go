package assemble

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/kmod"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
	"github.com/imgbuild/imgbuild/profiles"
)

const release = "6.12.1"

// modules is a small /usr/lib/modules/RELEASE, as depmod(8) leaves it.
func modules() map[string]string {
	return map[string]string{
		"modules.dep": "kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz\n" +
			"kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz\nkernel/drivers/md/dm-mod.ko.xz:\n" +
			"kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz\nkernel/lib/libcrc32c.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\nkernel/arch/x86/crypto/crc32c-intel.ko.xz:\n" +
			"kernel/drivers/block/virtio_blk.ko.xz:\nkernel/drivers/nvme/host/nvme.ko.xz: kernel/drivers/nvme/host/nvme-core.ko.xz\nkernel/drivers/nvme/host/nvme-core.ko.xz:\n" +
			"kernel/net/unrelated.ko.xz:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/fs/overlayfs/overlay.ko\nkernel/drivers/virtio/virtio_pci.ko\n",
		"modules.softdep": "# Soft dependencies extracted from modules themselves.\nsoftdep libcrc32c pre: crypto-crc32c not_there\nsoftdep unrelated pre: virtio_blk\n",
		"modules.alias": "alias virtio:d00000002v* virtio_blk\nalias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias net-pf-1 unrelated\nalias fs-erofs erofs\n" +
			"alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n",
	}
}

func kernelTree(t testing.TB, files map[string]string) *tree.Tree {
	t.Helper()
	tr := tree.New()
	put := func(name, text string) {
		if err := tr.Put("usr/lib/modules/"+release+"/"+name, tree.Node{Mode: 0o644, Content: tree.Bytes(text)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		put(name, text)
	}
	for line := range strings.Lines(files["modules.dep"]) {
		file, _, _ := strings.Cut(line, ":")
		put(file, "module "+filepath.Base(file))
	}
	return tr
}

// unpack reads an initrd back: name → mode and content.
func unpack(t *testing.T, packed []byte) map[string]string {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out := map[string]string{}
	seen := map[int64]bool{}
	for r := cpio.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if dir := filepath.Dir(h.Name); dir != "." && out[dir] == "" {
			t.Errorf("%s comes before its folder: the kernel would drop it", h.Name)
		}
		if seen[h.Inode] || h.Links != 1 || !h.ModTime.Equal(repro.Epoch()) || h.Uid != 0 || h.Guid != 0 {
			t.Errorf("%s: inode %d, %d links, time %v, owner %d:%d", h.Name, h.Inode, h.Links, h.ModTime, h.Uid, h.Guid)
		}
		seen[h.Inode] = true
		out[h.Name] = strings.TrimSuffix(fmt.Sprintf("%06o %s", h.Mode, data), " ")
	}
}

func TestInitrd(t *testing.T) {
	packed, err := Initrd(kernelTree(t, modules()), release, []byte("ELF init"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"init": "100755 ELF init",
		"imgbuild/modules": `100644 crc32c_generic lib/modules/crc32c_generic.ko.xz
dm_bufio lib/modules/dm-bufio.ko.xz dm_mod
dm_mod lib/modules/dm-mod.ko.xz
!dm_verity lib/modules/dm-verity.ko.xz dm_bufio dm_mod
!erofs lib/modules/erofs.ko.xz libcrc32c
libcrc32c lib/modules/libcrc32c.ko.xz crc32c_generic
nvme lib/modules/nvme.ko.xz nvme_core
nvme_core lib/modules/nvme-core.ko.xz
virtio_blk lib/modules/virtio_blk.ko.xz
`,
		"imgbuild/aliases": "100644 alias virtio:d00000002v* virtio_blk\nalias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias fs-erofs erofs\nalias crypto-crc32c crc32c_generic\n",
	}
	for _, dir := range []string{"dev", "proc", "sys", "run", "sysroot", "imgbuild", "lib", "lib/modules"} {
		want[dir] = "040755"
	}
	for _, m := range []string{"crc32c_generic", "dm-bufio", "dm-mod", "dm-verity", "erofs", "libcrc32c", "nvme", "nvme-core", "virtio_blk"} {
		want["lib/modules/"+m+".ko.xz"] = "100644 module " + m + ".ko.xz"
	}
	if d := cmp.Diff(want, unpack(t, packed)); d != "" {
		t.Error(d)
	}
	again, err := Initrd(kernelTree(t, modules()), release, []byte("ELF init"))
	if err != nil || !bytes.Equal(packed, again) {
		t.Errorf("two runs differ (%v)", err)
	}
}

func TestInitrdRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string]string)
		want   string
	}{
		"no dm_verity":     {func(m map[string]string) { m["modules.dep"] = "kernel/erofs.ko:\n" }, "kernel 6.12.1 has no module dm_verity"},
		"no ext4":          {func(m map[string]string) { m["modules.builtin"] = "kernel/overlay.ko\n" }, "kernel 6.12.1 has no module ext4"},
		"depmod not run":   {func(m map[string]string) { delete(m, "modules.dep") }, "modules.dep"},
		"no modules.alias": {func(m map[string]string) { delete(m, "modules.alias") }, "modules.alias"},
	} {
		t.Run(name, func(t *testing.T) {
			files := maps.Clone(modules())
			c.change(files)
			if _, err := Initrd(kernelTree(t, files), release, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("module file missing", func(t *testing.T) {
		tr := kernelTree(t, modules())
		tr.Remove("usr/lib/modules/" + release + "/kernel/drivers/nvme/host/nvme-core.ko.xz")
		if _, err := Initrd(tr, release, nil); err == nil || !strings.Contains(err.Error(), "nvme-core") {
			t.Error(err)
		}
	})
}

// TestInitrdReference: cpio(1) and zstd(1) list the same names.
func TestInitrdReference(t *testing.T) {
	if err := run.Need(map[string]string{"cpio": "cpio", "zstd": "zstd"}); err != nil {
		t.Skip(err)
	}
	packed, err := Initrd(kernelTree(t, modules()), release, []byte("init"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := run.Output(t.Context(), run.Cmd{Name: "zstd", Args: []string{"-dc"}, Stdin: bytes.NewReader(packed)})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := run.Output(t.Context(), run.Cmd{Name: "cpio", Args: []string{"--list", "--quiet"}, Stdin: bytes.NewReader(plain)})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(listed))
	slices.Sort(got)
	if d := cmp.Diff(slices.Sorted(maps.Keys(unpack(t, packed))), got); d != "" {
		t.Error(d)
	}
}

// TestNothingNeededIsLeftOut puts every module that a node of any kind loads at boot, or
// that an initrd takes, into a folder that is left out whole: it stays.
func TestNothingNeededIsLeftOut(t *testing.T) {
	for name, sets := range map[string][]string{"worker": nil, "master": {"boot.modules=snd_dummy"}, "calico": {"cni.name=calico", "cni.backend=ipip"}} {
		role := map[bool]string{true: name, false: "worker"}[name == "master"]
		if name == "calico" {
			sets = append(sets, "cni.manifest.file=x.yaml", "cni.manifest.sha256="+strings.Repeat("0", 64))
		}
		n, found := spec.Load(spec.Input{Role: role, Profiles: profiles.Files, Sets: sets})
		if n == nil || found.Err() != nil {
			t.Fatal(found)
		}
		p, err := plan.Make(n, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		need := Modules()
		for _, f := range p.Files {
			if strings.HasPrefix(f.Path, "/usr/lib/modules-load.d/") {
				need = append(need, strings.Fields(f.Text)...)
			}
		}
		if len(need) < 40 {
			t.Errorf("only %d modules are needed", len(need))
		}
		files := modules()
		index, err := kmod.Write(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"dep", "alias", "symbols"} {
			files["modules."+name+".bin"] = string(index)
		}
		files["modules.dep"] = "kernel/sound/not_needed.ko.xz:\n"
		for _, name := range need {
			files["modules.dep"] += "kernel/drivers/staging/" + name + ".ko.xz:\n"
		}
		root := kernelTree(t, files)
		if err := rootfs.LeaveOut(root, p, release, Modules()); err != nil {
			t.Fatal(err)
		}
		if _, ok := root.Get("usr/lib/modules/" + release + "/kernel/sound"); ok {
			t.Error("what is not needed is not left out")
		}
		for _, module := range need {
			if _, ok := root.Get("usr/lib/modules/" + release + "/kernel/drivers/staging/" + module + ".ko.xz"); !ok {
				t.Errorf("%s: %s is left out", name, module)
			}
		}
	}
}
