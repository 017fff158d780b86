//go:build linux

package initrd

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/ramdisk"
)

type module struct {
	file   string
	deps   []string
	loaded bool
}

type drivers struct {
	root    string
	modules map[string]*module
	aliases [][2]string // pattern, module
	seen    map[string]bool
	load    func(file string) error
}

// loadDrivers reads both lists below root and loads what is always needed.
func loadDrivers(root string) (*drivers, error) {
	d := &drivers{root: root, modules: map[string]*module{}, seen: map[string]bool{}, load: insert}
	always, err := d.readModules()
	if err != nil {
		return nil, err
	}
	if err := d.readAliases(); err != nil {
		return nil, err
	}
	for _, name := range always {
		if err := d.insert(name); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *drivers) readModules() (always []string, err error) {
	f, err := os.Open(filepath.Join(d.root, ramdisk.ModuleList))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			return nil, fmt.Errorf("%s: bad line %q", ramdisk.ModuleList, lines.Text())
		}
		name, need := strings.CutPrefix(words[0], "!")
		d.modules[name] = &module{file: words[1], deps: words[2:]}
		if need {
			always = append(always, name)
		}
	}
	return always, lines.Err()
}

func (d *drivers) readAliases() error {
	f, err := os.Open(filepath.Join(d.root, ramdisk.AliasList))
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "alias" {
			d.aliases = append(d.aliases, [2]string{words[1], words[2]})
		}
	}
	return lines.Err()
}

// coldplug loads the driver of every device that has come up since the last call.
func (d *drivers) coldplug() {
	files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias")
	for _, file := range files {
		raw, err := os.ReadFile(file) // #nosec G304 -- sysfs
		alias := strings.TrimSpace(string(raw))
		if err != nil || alias == "" || d.seen[alias] {
			continue
		}
		d.seen[alias] = true
		for _, name := range d.match(alias) {
			if err := d.insert(name); err != nil {
				Log("driver %s for %s: %v", name, alias, err)
			}
		}
	}
}

// match returns the modules whose alias pattern (modules.alias, fnmatch) fits.
func (d *drivers) match(alias string) []string {
	var out []string
	for _, a := range d.aliases {
		if ok, err := path.Match(a[0], alias); err == nil && ok {
			out = append(out, a[1])
		}
	}
	return out
}

// insert loads a module and, before it, what it depends on. One that failed is
// tried again when the next device asks for it. A dependency that has no device may be a soft
// one, a checksum by an instruction that this processor lacks: the kernel then says of the
// module itself whether it can do without.
func (d *drivers) insert(name string) (err error) {
	m, ok := d.modules[name]
	if !ok {
		return fmt.Errorf("kernel module %s is not in the RAM disk", name)
	}
	if m.loaded {
		return nil
	}
	m.loaded = true
	defer func() { m.loaded = err == nil }()
	for _, dep := range m.deps {
		if err := d.insert(dep); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	if err := d.load(filepath.Join(d.root, m.file)); err != nil {
		return fmt.Errorf("loading kernel module %s: %w", name, err)
	}
	return nil
}

// insert hands a module file to the kernel, which decompresses it if it must.
func insert(file string) error {
	f, err := os.Open(file) // #nosec G304 -- the RAM disk's own list
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	err = unix.FinitModule(int(f.Fd()), "", flags)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
