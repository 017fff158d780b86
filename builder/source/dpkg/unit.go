package dpkg

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// enable makes the links that a unit's [Install] section asks for, in /etc, and those
// of the units that it names with Also= (systemd.unit(5)). The manager is system or user.
func (r *root) enable(manager, unit string) error {
	return r.enableOnce(manager, unit, map[string]bool{})
}

func (r *root) enableOnce(manager, name string, seen map[string]bool) error {
	if seen[name] {
		return nil
	}
	seen[name] = true
	unit, err := readUnit(name)
	if err != nil {
		return fmt.Errorf("enabling %s: %w", name, err)
	}
	file := "usr/lib/systemd/" + manager + "/" + unit.file()
	text, err := r.ReadFile(file)
	if err != nil {
		return fmt.Errorf("enabling %s: %w", name, err)
	}
	lines := installLines(string(text))
	wanted, err := unit.orDefault(lines) // what is started; aliases are of the unit as it is named
	if err != nil {
		return fmt.Errorf("enabling %s: DefaultInstance=: %w; %s", name, err, WayOut)
	}
	for _, line := range lines {
		for _, value := range strings.Fields(line[1]) {
			if value, err = wanted.expand(value); err != nil {
				return fmt.Errorf("enabling %s: %s=: %w; %s", name, line[0], err, WayOut)
			}
			var at string
			switch folder := folders[line[0]]; {
			case folder != "" && wanted.startedBy(value):
				at = value + folder + wanted.String()
			case line[0] == "Alias":
				at = unit.alias(value)
			case line[0] == "Also":
				if err := r.enableOnce(manager, value, seen); err != nil {
					return err
				}
			}
			if at == "" {
				continue
			}
			if err := r.replace("etc/systemd/"+manager+"/"+at, tree.Node{Mode: fs.ModeSymlink | 0o777, Link: "/" + file}); err != nil {
				return err
			}
		}
	}
	return nil
}

// folders are those beside a unit that hold what it starts.
var folders = map[string]string{"WantedBy": ".wants/", "RequiredBy": ".requires/", "UpheldBy": ".upholds/"}

// presets are the lines of systemd.preset(5) files, the first that matches a unit decides.
type presets [][2]string // "enable" or "disable", and a pattern

// readPresets reads them in the order of the files' names; /etc goes before /usr.
func (r *root) readPresets(manager string) (out presets, err error) {
	files := map[string]string{} // name → path
	for _, p := range r.Paths() {
		if dir := path.Dir(p); (dir == "usr/lib/systemd/"+manager+"-preset" || dir == "etc/systemd/"+manager+"-preset") && files[path.Base(p)] == "" {
			files[path.Base(p)] = p
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := r.ReadFile(files[name])
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if w := strings.Fields(line); len(w) == 2 && (w[0] == "enable" || w[0] == "disable") {
				out = append(out, [2]string{w[0], w[1]})
			}
		}
	}
	return out, nil
}

// enables says whether a unit is to be enabled: yes, where no line matches.
func (p presets) enables(unit string) bool {
	for _, line := range p {
		if match, _ := path.Match(line[1], unit); match {
			return line[0] == "enable"
		}
	}
	return true
}

// installLines are the keys and values of the [Install] section.
func installLines(text string) (out [][2]string) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			inside = line == "[Install]"
		}
		if key, value, ok := strings.Cut(line, "="); ok && inside && !strings.HasPrefix(line, "#") {
			out = append(out, [2]string{strings.TrimSpace(key), value})
		}
	}
	return out
}
