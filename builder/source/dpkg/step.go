package dpkg

import (
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// steps are what a script does that needs more than a line of the table, by the name
// that the table has for it. They run last, in this order.
var steps = []struct {
	name string
	run  func(*root, []*Package) error
}{
	{"multilib", func(r *root, _ []*Package) error { return r.multilib() }},
	{"shadow", func(r *root, _ []*Package) error { r.users.shadowAll(); return r.users.write(r) }},
	{"shells", func(r *root, _ []*Package) error { return r.shells() }},
	{"pam", func(r *root, _ []*Package) error { return r.pam() }},
	{"certificates", func(r *root, _ []*Package) error { return r.certificates() }},
	{"ldcache", (*root).linkerCache},
	{"hwdb", func(r *root, _ []*Package) error { return r.hardware() }},
	{"modules", (*root).modules},
	{"glib", func(r *root, _ []*Package) error { return r.glib() }},
	{"kernel-hooks", func(r *root, _ []*Package) error { return r.hooks(kernelHooks) }},
	{"python-hooks", func(r *root, _ []*Package) error { return r.hooks(pythonHooks) }},
}

func (r *root) runSteps(packages []*Package, deeds []Deeds) error {
	wanted := map[string]bool{}
	for _, d := range deeds {
		for _, s := range d.Steps {
			wanted[s] = true
		}
	}
	for _, s := range steps {
		if wanted[s.name] {
			if err := s.run(r, packages); err != nil {
				return err
			}
		}
	}
	return nil
}

// multilib links the folders of other architectures' libraries into the root.
func (r *root) multilib() error {
	for _, dir := range []string{"lib32", "lib64", "libo32", "libx32"} {
		if _, ok := r.Get("usr/" + dir); ok {
			if err := r.link(dir, "usr/"+dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// shells adds the packages' login shells to /etc/shells, as update-shells(8) does: each
// as it is named and as it lies in a merged /usr.
func (r *root) shells() error {
	have := map[string]bool{}
	out, err := r.ReadFile("etc/shells")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		have[strings.TrimSpace(line)] = true
	}
	for _, file := range append([]string{"usr/share/debianutils/shells"}, r.below("usr/share/debianutils/shells.d")...) {
		text, err := r.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			real, err := r.inside(line)
			if err != nil {
				return err
			}
			for _, shell := range []string{line, "/" + real} {
				if !have[shell] {
					have[shell] = true
					out = append(out, shell+"\n"...)
				}
			}
		}
	}
	return r.text("etc/shells", out)
}

// glib makes sure that there is nothing to compile or to list.
func (r *root) glib() error {
	for _, p := range r.Paths() {
		if path.Dir(p) == "usr/share/glib-2.0/schemas" || strings.HasPrefix(p, "usr/lib/") && path.Base(path.Dir(p)) == "modules" && path.Base(path.Dir(path.Dir(p))) == "gio" {
			return fault.New(fault.Spec, "/%s is a GSettings schema or a GIO module, which only GLib's own tools can register; %s", p, WayOut)
		}
	}
	return nil
}

// hooks are programs of any package that a script runs.
type hooks struct {
	of       string
	dirs     []string
	replaced []string // what imgbuild stands in for, or what is for the build host
}

var (
	kernelHooks = hooks{"the kernel's scripts", []string{"etc/kernel/preinst.d", "etc/kernel/postinst.d", "usr/share/kernel/preinst.d", "usr/share/kernel/postinst.d"},
		[]string{"initramfs-tools", "intel-microcode", "xx-update-initrd-links", "zz-update-grub"}}
	pythonHooks = hooks{"python3's scripts", []string{"usr/share/python3/runtime.d"}, []string{"public_modules.rtinstall", "public_modules.rtremove",
		"glusterfs-common.rtupdate"}} // byte code, a cache
)

func (r *root) hooks(h hooks) error {
	for _, dir := range h.dirs {
		for _, p := range r.below(dir) {
			if !slices.Contains(h.replaced, path.Base(p)) {
				return fault.New(fault.Spec, "/%s is a hook of %s that nobody read; %s", p, h.of, WayOut)
			}
		}
	}
	return nil
}

// below lists what lies right in a folder, by name.
func (r *root) below(dir string) (out []string) {
	for _, p := range r.Paths() {
		if path.Dir(p) == dir {
			out = append(out, p)
		}
	}
	return out
}
