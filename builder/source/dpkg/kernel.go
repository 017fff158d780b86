package dpkg

import (
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kmod"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const modulesDir = "usr/lib/modules/"

// IsKernel says whether a package of that name can have a kernel's modules, which need indices.
func IsKernel(name string) bool {
	m := kernelForm.FindStringSubmatch(name)
	return m != nil && m[1] != "modules-extra"
}

// Indices is what depmod(8) would make of the package's modules, if it has any: a layer that
// goes on top of its own.
func (p *Package) Indices() (*tree.Tree, error) {
	t := tree.New()
	if len(p.modules()) == 0 {
		return t, nil
	}
	return t, index(t, p.Files, modulesDir+p.release())
}

// index puts into t what depmod(8) would make of the modules in dir of another tree.
func index(t, of *tree.Tree, dir string) error {
	files, err := kmod.Depmod(of, dir)
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(files) {
		if err := t.Put(path.Join(dir, name), tree.Node{Mode: 0o644, Content: tree.Bytes(files[name])}); err != nil {
			return err
		}
	}
	return nil
}

// modules are the files of the package's kernel modules.
func (p *Package) modules() (out []string) {
	for _, file := range p.Files.Paths() {
		if strings.HasPrefix(file, modulesDir) && strings.Contains(path.Base(file), ".ko") {
			out = append(out, file)
		}
	}
	return out
}

// modules makes sure that the indices of the kernels know all modules there are. Those of a
// kernel whose modules are in more than one package are made anew, of all of them.
func (r *root) modules(packages []*Package) error {
	parts := map[string]int{} // by release
	for _, p := range packages {
		switch all := p.modules(); {
		case len(all) == 0:
		case p.release() == "":
			return fault.New(fault.Spec, "package %s %s brings the kernel module /%s, and only the kernel's own modules are listed; %s", p.Name, p.Version, all[0], WayOut)
		default:
			if _, ok := p.Files.Get(modulesDir + p.release() + "/modules.dep.bin"); !ok && IsKernel(p.Name) {
				return fault.New(fault.Internal, "package %s: the indices of its modules were not made", p.Name)
			}
			parts[p.release()]++
		}
	}
	for _, release := range sortedKeys(parts) {
		if parts[release] > 1 {
			if err := index(r.Tree, r.Tree, modulesDir+release); err != nil {
				return err
			}
		}
	}
	return nil
}
