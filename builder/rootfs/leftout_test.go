package rootfs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kmod"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const modulesDir = "usr/lib/modules/6.12.1/"

// kernelLists are what depmod says of six modules: a kept driver needs one of a folder that
// goes, and by a soft dependency another one.
var kernelLists = map[string]string{
	"modules.dep": "kernel/net/nic.ko.xz: kernel/drivers/media/helper-core.ko.xz\nkernel/drivers/media/helper-core.ko.xz:\nkernel/drivers/media/soft.ko.xz:\n" +
		"kernel/drivers/media/dvb/dvb-usb.ko.xz: kernel/drivers/media/helper-core.ko.xz\nkernel/sound/snd-dummy.ko.xz:\nkernel/sound/snd_asked.ko.xz:\n",
	"modules.order":   "kernel/net/nic.ko\nkernel/drivers/media/dvb/dvb-usb.ko\nkernel/sound/snd-dummy.ko\n",
	"modules.alias":   "# Aliases extracted from modules themselves.\nalias pci:v1* nic\nalias usb:v1* dvb_usb\nalias snd-card-0 snd_dummy\n",
	"modules.symbols": "alias symbol:nic_up nic\nalias symbol:dvb_on dvb_usb\n",
	"modules.softdep": "softdep nic pre: soft\nsoftdep dvb_usb post: soft\n",
	"modules.devname": "dvb_usb dvb c212:0\nnic nic c10:1\n",
	"modules.builtin": "kernel/fs/ext4.ko\n",
}

func kernelTree(t testing.TB) *tree.Tree {
	t.Helper()
	entries := map[string]string{"usr/lib/modules-load.d/base.conf": "# of a package\nsnd-asked\n", "usr/lib/other": "other"}
	for name, text := range kernelLists {
		entries[modulesDir+name] = text
	}
	var dep, alias, symbols []kmod.Entry
	for i, line := range strings.Split(strings.TrimSpace(kernelLists["modules.dep"]), "\n") {
		file, _, _ := strings.Cut(line, ":")
		entries[modulesDir+file] = "module"
		dep = append(dep, kmod.Entry{Key: moduleName(file), Priority: uint32(i), Value: line})
	}
	for list, to := range map[string]*[]kmod.Entry{"modules.alias": &alias, "modules.symbols": &symbols} {
		for line := range strings.Lines(kernelLists[list]) {
			if words := strings.Fields(line); words[0] == "alias" {
				*to = append(*to, kmod.Entry{Key: words[1], Value: words[2]})
			}
		}
	}
	for name, list := range map[string][]kmod.Entry{"modules.dep.bin": dep, "modules.alias.bin": alias, "modules.symbols.bin": symbols} {
		index, err := kmod.Write(list)
		if err != nil {
			t.Fatal(err)
		}
		entries[modulesDir+name] = string(index)
	}
	return grow(t, entries)
}

// TestLeaveOutModules holds the tree and each list and index against what must stay.
func TestLeaveOutModules(t *testing.T) {
	tr := kernelTree(t)
	p := &plan.Plan{LeftOut: []component.LeftOut{{Name: "modules", Paths: []string{"usr/lib/modules/*/kernel/sound", "usr/lib/modules/*/kernel/drivers/media"}}}}
	if err := LeaveOut(tr, p, "6.12.1", nil); err != nil {
		t.Fatal(err)
	}
	got := show(t, tr)
	index := func(name string) (out []string) {
		entries, err := kmod.Read([]byte(got[modulesDir+name]))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Key+" "+e.Value)
		}
		return out
	}
	for name, want := range map[string]string{
		"modules.dep":   "kernel/net/nic.ko.xz: kernel/drivers/media/helper-core.ko.xz\nkernel/drivers/media/helper-core.ko.xz:\nkernel/drivers/media/soft.ko.xz:\nkernel/sound/snd_asked.ko.xz:\n",
		"modules.order": "kernel/net/nic.ko\n", "modules.alias": "# Aliases extracted from modules themselves.\nalias pci:v1* nic\n", "modules.symbols": "alias symbol:nic_up nic\n",
		"modules.softdep": "softdep nic pre: soft\n", "modules.devname": "nic nic c10:1\n", "modules.builtin": kernelLists["modules.builtin"],
		"modules.weakdep": "", "kernel/sound/snd-dummy.ko.xz": "", "kernel/drivers/media/dvb": "", "kernel/drivers/media": "dir 0755",
		"kernel/sound/snd_asked.ko.xz": "module", "kernel/drivers/media/helper-core.ko.xz": "module", "kernel/drivers/media/soft.ko.xz": "module",
	} {
		if diff := cmp.Diff(want, got[modulesDir+name]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, want := range map[string][]string{
		"modules.dep.bin": {"helper_core kernel/drivers/media/helper-core.ko.xz:", "nic kernel/net/nic.ko.xz: kernel/drivers/media/helper-core.ko.xz",
			"snd_asked kernel/sound/snd_asked.ko.xz:", "soft kernel/drivers/media/soft.ko.xz:"},
		"modules.alias.bin": {"pci:v1* nic"}, "modules.symbols.bin": {"symbol:nic_up nic"},
	} {
		if diff := cmp.Diff(want, index(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestCheckModules(t *testing.T) {
	tr := kernelTree(t)
	if err := CheckModules(tr, "6.12.1", []string{"dvb-usb", "nic"}); err != nil {
		t.Error(err)
	}
	if err := CheckModules(tr, "6.12.1", []string{"nic", "nosuch"}); fault.KindOf(err) != fault.Spec || !strings.Contains(err.Error(), "boot.modules[1]: the kernel 6.12.1 has no module nosuch") {
		t.Error(err)
	}
}

// TestLeaveOutNeeded keeps what the caller or the plan names.
func TestLeaveOutNeeded(t *testing.T) {
	p := &plan.Plan{LeftOut: []component.LeftOut{{Paths: []string{"usr/lib/modules/*/kernel/*"}}},
		Files: []component.File{{Path: "/usr/lib/modules-load.d/imgbuild.conf", Text: "dvb_usb\nnot_there\n"}}}
	tr := kernelTree(t)
	if err := LeaveOut(tr, p, "6.12.1", []string{"snd-dummy"}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{"kernel/drivers/media/dvb/dvb-usb.ko.xz": true, "kernel/drivers/media/helper-core.ko.xz": true, "kernel/sound/snd-dummy.ko.xz": true,
		"kernel/sound/snd_asked.ko.xz": true, "kernel/drivers/media/soft.ko.xz": true, "kernel/net/nic.ko.xz": false, "kernel/net": false} {
		if _, ok := tr.Get(modulesDir + file); ok != want {
			t.Errorf("%s: there %v, want %v", file, ok, want)
		}
	}
}

func TestLeaveOut(t *testing.T) {
	entries := map[string]string{modulesDir + "modules.dep": "", "usr/lib/x86/gconv/A.so": "a", "usr/lib/x86/gconv/UTF-16.so": "u", "usr/lib/x86/gconv/gconv-modules": "m",
		"usr/share/perl/5.40": "-> 5.40.1", "usr/share/perl/5.40.1/X.pm": "p", "usr/bin/perl": "perl", "usr/bin/perl5.40.1": "perl", "usr/bin/perldoc": "doc"}
	tr := grow(t, entries)
	p := &plan.Plan{LeftOut: []component.LeftOut{{Paths: []string{"usr/lib/*/gconv/*"}, But: []string{"usr/lib/*/gconv/gconv-modules*", "usr/lib/*/gconv/UTF-16.so"}},
		{Paths: []string{"usr/share/perl/*", "usr/bin/perl5*"}}}}
	if err := LeaveOut(tr, p, "6.12.1", nil); err != nil {
		t.Fatal(err)
	}
	got := show(t, tr)
	for p, want := range map[string]string{"usr/lib/x86/gconv/A.so": "", "usr/lib/x86/gconv/UTF-16.so": "u", "usr/lib/x86/gconv/gconv-modules": "m", "usr/share/perl": "dir 0755",
		"usr/share/perl/5.40": "", "usr/share/perl/5.40.1": "", "usr/share/perl/5.40.1/X.pm": "", "usr/bin/perl": "perl", "usr/bin/perl5.40.1": "", "usr/bin/perldoc": "doc"} {
		if got[p] != want {
			t.Errorf("%s: %q, want %q", p, got[p], want)
		}
	}
	broken := kernelTree(t)
	if err := broken.Put(modulesDir+"modules.alias.bin", tree.Node{Mode: 0o644, Content: tree.Bytes("junk")}); err != nil {
		t.Fatal(err)
	}
	p.LeftOut = []component.LeftOut{{Paths: []string{"usr/lib/modules/*/kernel/drivers"}}}
	if err := LeaveOut(broken, p, "6.12.1", nil); err == nil || !strings.Contains(err.Error(), "modules.alias.bin: no index") {
		t.Error(err)
	}
}
