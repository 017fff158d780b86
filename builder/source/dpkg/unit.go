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

func (r *root) enableOnce(manager, unit string, seen map[string]bool) error {
	unitDir := "usr/lib/systemd/" + manager + "/"
	if seen[unit] {
		return nil
	}
	seen[unit] = true
	file := unit
	if name, rest, ok := strings.Cut(unit, "@"); ok {
		dot := strings.LastIndexByte(rest, '.')
		if dot < 0 {
			return fmt.Errorf("enabling %s: a unit's name ends with its type, such as .service", unit)
		}
		file = name + "@" + rest[dot:]
	}
	text, err := r.ReadFile(unitDir + file)
	if err != nil {
		return fmt.Errorf("enabling %s: %w", unit, err)
	}
	link := tree.Node{Mode: fs.ModeSymlink | 0o777, Link: "/" + unitDir + file}
	for _, install := range installLines(string(text)) {
		for _, value := range strings.Fields(install[1]) {
			var at string
			switch install[0] {
			case "WantedBy":
				at = value + ".wants/" + unit
			case "RequiredBy":
				at = value + ".requires/" + unit
			case "UpheldBy":
				at = value + ".upholds/" + unit
			case "Alias":
				at = value
			case "Also":
				if err := r.enableOnce(manager, value, seen); err != nil {
					return err
				}
				continue
			default:
				continue
			}
			if err := r.replace("etc/systemd/"+manager+"/"+at, link); err != nil {
				return err
			}
		}
	}
	return nil
}

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
