package dpkg

import (
	"maps"
	"path"
	"slices"

	"github.com/imgbuild/imgbuild/internal/hwdb"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// hardware compiles udev's hardware database into /usr, as `systemd-hwdb --usr update` would.
func (r *root) hardware() error {
	files := map[string]string{} // name → path; /etc goes before /usr
	for _, dir := range []string{"usr/lib/udev/hwdb.d", "etc/udev/hwdb.d"} {
		for _, p := range r.below(dir) {
			if path.Ext(p) == ".hwdb" {
				files[path.Base(p)] = p
			}
		}
	}
	d := hwdb.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := r.ReadFile(files[name])
		if err != nil {
			return err
		}
		if err := d.Add("/"+files[name], text); err != nil {
			return err
		}
	}
	return r.Put("usr/lib/udev/hwdb.bin", tree.Node{Mode: 0o444, Content: tree.Bytes(d.Bytes())})
}
