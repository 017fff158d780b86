package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kmod"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// modules is what depmod(8) says of a kernel's loadable modules.
type modules struct {
	dir    string
	files  map[string]string   // name → file below dir
	needs  map[string][]string // name → names, soft ones too
	loaded []string            // at boot, by the base's packages
}

func readModules(t *tree.Tree, dir string) (*modules, error) {
	m := &modules{dir: dir, files: map[string]string{}, needs: map[string][]string{}}
	dep, err := t.ReadFile(dir + "/modules.dep")
	if err != nil {
		return nil, fmt.Errorf("reading kernel modules: %w", err)
	}
	for line := range strings.Lines(string(dep)) {
		file, rest, _ := strings.Cut(line, ":")
		name := moduleName(file)
		m.files[name] = file
		for d := range strings.FieldsSeq(rest) {
			m.needs[name] = append(m.needs[name], moduleName(d))
		}
	}
	soft, err := t.ReadFile(dir + "/modules.softdep")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading kernel modules: %w", err)
	}
	for line := range strings.Lines(string(soft)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "softdep" {
			name := moduleName(words[1])
			for _, w := range words[2:] {
				m.needs[name] = append(m.needs[name], moduleName(w)) // "pre:" is no module
			}
		}
	}
	for _, p := range t.Paths() {
		if d := path.Dir(p); d == "usr/lib/modules-load.d" || d == "etc/modules-load.d" || p == "etc/modules" {
			text, err := t.ReadFile(p)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a link that leads nowhere
				return nil, err
			}
			m.loaded = append(m.loaded, names(string(text))...)
		}
	}
	return m, nil
}

// CheckModules says so when the kernel of that release has none of a name that the spec wants
// loaded at boot, as a file or built in.
func CheckModules(t *tree.Tree, release string, wanted []string) error {
	if len(wanted) == 0 {
		return nil
	}
	have := map[string]bool{}
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		text, err := t.ReadFile(path.Join("usr/lib/modules", release, list))
		if err != nil {
			return fmt.Errorf("reading kernel modules: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			have[moduleName(file)] = true
		}
	}
	for i, name := range wanted {
		if !have[moduleName(name)] {
			return fault.New(fault.Spec, "boot.modules[%d]: the kernel %s has no module %s; it may be another kernel's (base.kernel), or a package's (base.packages)", i, release, name)
		}
	}
	return nil
}

// names are those of modules-load.d(5).
func names(text string) (out []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != ';' {
			out = append(out, line)
		}
	}
	return out
}

func moduleName(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// keep takes from gone the modules of these names and what modules that stay depend on.
func (m *modules) keep(gone map[string]bool, want []string) {
	for name, file := range m.files {
		if !gone[path.Join(m.dir, file)] {
			want = append(want, name)
		}
	}
	seen := map[string]bool{}
	for len(want) > 0 {
		name := moduleName(want[0])
		want = want[1:]
		if file, ok := m.files[name]; ok && !seen[name] {
			seen[name] = true
			delete(gone, path.Join(m.dir, file))
			want = append(want, m.needs[name]...)
		}
	}
}

// filter makes the lists and indices anew, without modules that are gone. A list's line
// names its module in the word at that place; that of modules.dep and modules.order is a file.
func (m *modules) filter(t *tree.Tree, gone map[string]bool) error {
	away := map[string]bool{}
	for name, file := range m.files {
		if gone[path.Join(m.dir, file)] {
			away[name] = true
		}
	}
	if len(away) == 0 {
		return nil
	}
	for list, word := range map[string]int{"dep": 0, "order": 0, "alias": 2, "symbols": 2, "softdep": 1, "weakdep": 1, "devname": 0} {
		if err := m.filterList(t, "modules."+list, func(line string) bool {
			words := strings.Fields(line)
			return len(words) > word && words[0] != "#" && away[moduleName(words[word])]
		}); err != nil {
			return fmt.Errorf("leaving out kernel modules: %w", err)
		}
	}
	for index, name := range map[string]func(kmod.Entry) string{
		"dep":   func(e kmod.Entry) string { return e.Key },
		"alias": func(e kmod.Entry) string { return e.Value }, "symbols": func(e kmod.Entry) string { return e.Value },
	} {
		if err := m.filterIndex(t, "modules."+index+".bin", func(e kmod.Entry) bool { return away[moduleName(name(e))] }); err != nil {
			return fmt.Errorf("leaving out kernel modules: %w", err)
		}
	}
	return nil
}

func (m *modules) filterList(t *tree.Tree, list string, out func(line string) bool) error {
	text, err := t.ReadFile(path.Join(m.dir, list))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // of an older kmod
	}
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(text)) {
		if !out(line) {
			kept.WriteString(line)
		}
	}
	return t.Put(path.Join(m.dir, list), tree.Node{Mode: 0o644, Content: tree.Bytes(kept.String())})
}

func (m *modules) filterIndex(t *tree.Tree, index string, out func(kmod.Entry) bool) error {
	old, err := t.ReadFile(path.Join(m.dir, index))
	if err != nil {
		return err
	}
	entries, err := kmod.Read(old)
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	made, err := kmod.Write(slices.DeleteFunc(entries, out))
	if err != nil {
		return fmt.Errorf("%s: %w", index, err)
	}
	return t.Put(path.Join(m.dir, index), tree.Node{Mode: 0o644, Content: tree.Bytes(made)})
}
