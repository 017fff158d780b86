package rootfs

import (
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// LeaveOut takes what the plan leaves out from a sealed tree. Kernel modules that are
// needed by name, those that the plan or the base loads at boot, and what modules that
// stay depend on are not taken; the indices know of what stays alone.
func LeaveOut(t *tree.Tree, p *plan.Plan, release string, needed []string) error {
	if len(p.LeftOut) == 0 {
		return nil
	}
	gone := map[string]bool{}
	_ = t.Walk(func(at string, _ *tree.Node) error {
		for _, l := range p.LeftOut {
			if matches(l.Paths, at) && !matches(l.But, at) {
				gone[at] = true
			}
		}
		return nil
	})
	m, err := readModules(t, path.Join("usr/lib/modules", release))
	if err != nil {
		return err
	}
	for _, f := range p.Files {
		if strings.HasPrefix(f.Path, "/usr/lib/modules-load.d/") {
			needed = append(needed, names(f.Text)...)
		}
	}
	m.keep(gone, append(needed, m.loaded...))
	for _, p := range t.Paths() { // a folder stays for what is in it
		for dir := path.Dir(p); !gone[p] && dir != "."; dir = path.Dir(dir) {
			delete(gone, dir)
		}
	}
	t.RemoveAll(gone)
	return m.filter(t, gone)
}

// matches says whether a pattern matches p or a folder above it.
func matches(patterns []string, p string) bool {
	for _, pattern := range patterns {
		if covers(pattern, p) {
			return true
		}
	}
	return false
}

func covers(pattern, p string) bool {
	for {
		part, rest, more := strings.Cut(pattern, "/")
		name, below, deeper := strings.Cut(p, "/")
		if part != name && part != "*" {
			if ok, _ := path.Match(part, name); !ok {
				return false
			}
		}
		if !more {
			return true
		}
		if !deeper {
			return false
		}
		pattern, p = rest, below
	}
}
