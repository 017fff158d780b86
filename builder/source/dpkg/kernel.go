package dpkg

import (
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kmod"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const modulesDir = "usr/lib/modules/"

// IsKernel says whether a package of that name is a kernel, whose modules need indices.
func IsKernel(name string) bool { return kernelForm.MatchString(name) }

// Indices is what depmod(8) would make of the kernel's modules: a layer that goes on top
// of the package's own.
func (p *Package) Indices() (*tree.Tree, error) {
	dir := modulesDir + p.release()
	files, err := kmod.Depmod(p.Files, dir)
	if err != nil {
		return nil, err
	}
	t := tree.New()
	for _, name := range sortedKeys(files) {
		if err := t.Put(path.Join(dir, name), tree.Node{Mode: 0o644, Content: tree.Bytes(files[name])}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// modules makes sure that the indices of the kernels know all modules there are.
func (r *root) modules(packages []*Package) error {
	for _, p := range packages {
		if IsKernel(p.Name) {
			if _, ok := p.Files.Get(modulesDir + p.release() + "/modules.dep.bin"); !ok {
				return fault.New(fault.Internal, "package %s: the indices of its modules were not made", p.Name)
			}
			continue
		}
		for _, file := range p.Files.Paths() {
			if strings.HasPrefix(file, modulesDir) && strings.Contains(path.Base(file), ".ko") {
				return fault.New(fault.Spec, "package %s %s brings the kernel module /%s, and only the kernel's own modules are listed; %s", p.Name, p.Version, file, WayOut)
			}
		}
	}
	return nil
}
