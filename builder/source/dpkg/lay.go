package dpkg

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

const dirMode = fs.ModeDir | 0o755

// accounts is the order in which packages get the numbers of their users and groups,
// so that those of one node are those of every other; the rest follow by name.
var accounts = []string{"systemd", "systemd-timesyncd", "dbus-system-bus-common", "udev", "systemd-resolved", "openssh-server",
	"dhcpcd-base", "rpcbind", "openssh-client", "lldpd", "prometheus-node-exporter", "tcpdump", "nfs-common",
	"bird2", "chrony", "cron-daemon-common", "frr", "glusterfs-common", "haproxy", "snmpd", "uuid-runtime"}

// Lay lays out the packages and does what stands for their maintainer scripts.
// The same packages give the same tree, in whatever order they come. An error names all packages
// that only dpkg itself can lay out.
func Lay(packages []*Package) (*tree.Tree, error) {
	packages = slices.SortedFunc(slices.Values(packages), before)
	deeds, err := theTable.judge(packages)
	if err != nil {
		return nil, err
	}
	diverted, err := diversions(packages, deeds)
	if err != nil {
		return nil, err
	}
	t, err := union(packages, diverted)
	if err != nil {
		return nil, err
	}
	r := &root{Tree: t, packages: packages}
	for _, phase := range []func([]*Package, []Deeds) error{r.skeleton, r.makeUsers, r.actAll, r.makeTmpfiles, r.makeAlternatives, r.enableUnits, r.runSteps} {
		if err := phase(packages, deeds); err != nil {
			return nil, err
		}
	}
	var owners []File
	for _, d := range deeds {
		owners = append(owners, d.Owners...)
	}
	return t, r.database(packages, diverted, owners)
}

// Judge is Lay's error about packages that only dpkg itself can lay out, before there is
// anything of their files.
func Judge(packages []*Package) error {
	_, err := theTable.judge(slices.SortedFunc(slices.Values(packages), before))
	return err
}

// before puts the package that has the root's own folders and links first.
func before(a, b *Package) int {
	if first := "base-files"; (a.Name == first) != (b.Name == first) {
		if a.Name == first {
			return -1
		}
		return 1
	}
	return strings.Compare(a.Name, b.Name)
}

func diversions(packages []*Package, deeds []Deeds) (map[string]diversion, error) {
	out := map[string]diversion{}
	for i, d := range deeds {
		for from, to := range d.Divert {
			from, to = packages[i].special(from), packages[i].special(to)
			if old, ok := out[from]; ok {
				return nil, fmt.Errorf("packages %s and %s both divert %s; %s", old.by, packages[i].Name, from, WayOut)
			}
			out[from] = diversion{to, packages[i].Name}
		}
	}
	return out, nil
}

// skeleton is what mmdebstrap, debootstrap and the like make before the first package.
func (r *root) skeleton([]*Package, []Deeds) error {
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "etc", "var/tmp"} {
		f := File{Path: dir}
		if strings.HasSuffix(dir, "tmp") {
			f.Mode = "1777"
		}
		if err := r.make(f, dirMode, ""); err != nil {
			return err
		}
	}
	return nil
}

// makeUsers makes /etc/passwd and its like from the masters of base-passwd and what packages ask for.
func (r *root) makeUsers(packages []*Package, deeds []Deeds) error {
	passwd, err := r.ReadFile("usr/share/base-passwd/passwd.master")
	if err != nil {
		return fmt.Errorf("the base needs the package base-passwd: %w", err)
	}
	group, err := r.ReadFile("usr/share/base-passwd/group.master")
	if err != nil {
		return err
	}
	if r.users, err = readUsers(passwd, group); err != nil {
		return fmt.Errorf("base-passwd's masters: %w", err)
	}
	rank := func(i int) int {
		if at := slices.Index(accounts, packages[i].Name); at >= 0 {
			return at
		}
		return len(accounts)
	}
	order := make([]int, len(packages))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	for _, i := range order {
		byHand := deeds[i].byHand()
		for _, name := range deeds[i].Sysusers {
			text, err := r.ReadFile("usr/lib/sysusers.d/" + name)
			if err != nil {
				return fmt.Errorf("package %s: %w", packages[i].Name, err)
			}
			if err := r.users.sysusers(string(text), byHand); err != nil {
				return fmt.Errorf("package %s: %s: %w; %s", packages[i].Name, name, err, WayOut)
			}
		}
	}
	for _, i := range order {
		for _, name := range deeds[i].Groups {
			if err := r.users.addSystemGroup(name); err != nil {
				return fmt.Errorf("package %s: %w", packages[i].Name, err)
			}
		}
		for _, user := range deeds[i].Users {
			if err := r.users.addSystemUser(user); err != nil {
				return fmt.Errorf("package %s: %w", packages[i].Name, err)
			}
		}
	}
	return r.users.write(r)
}

func (r *root) actAll(packages []*Package, deeds []Deeds) error {
	for i, p := range packages {
		if err := r.act(p, deeds[i]); err != nil {
			return fmt.Errorf("package %s: %w", p.Name, err)
		}
	}
	return nil
}

func (r *root) makeTmpfiles(packages []*Package, deeds []Deeds) error {
	for i, p := range packages {
		for _, name := range deeds[i].Tmpfiles {
			text, err := r.ReadFile("usr/lib/tmpfiles.d/" + name)
			if err == nil {
				err = r.tmpfiles(string(text))
			}
			if err != nil {
				return fmt.Errorf("package %s: %s: %w", p.Name, name, err)
			}
		}
	}
	return nil
}

func (r *root) makeAlternatives(packages []*Package, deeds []Deeds) error {
	all := alternatives{}
	for i, p := range packages {
		for _, a := range deeds[i].Alternatives {
			if err := all.install(p.special(a)); err != nil {
				return fmt.Errorf("package %s: %w", p.Name, err)
			}
		}
	}
	for _, name := range sortedKeys(all) {
		if err := all[name].make(r); err != nil {
			return fmt.Errorf("alternative %s: %w", name, err)
		}
	}
	return nil
}

func (r *root) enableUnits(packages []*Package, deeds []Deeds) error {
	for manager, pick := range map[string]func(Deeds) (enable, preset []string){
		"system": func(d Deeds) ([]string, []string) { return d.Enable, d.preset },
		"user":   func(d Deeds) ([]string, []string) { return nil, d.userPreset },
	} {
		rules, err := r.readPresets(manager)
		if err != nil {
			return err
		}
		for i, p := range packages {
			enable, preset := pick(deeds[i])
			for _, u := range slices.Concat(enable, preset) {
				if slices.Contains(preset, u) && !rules.enables(u) {
					continue
				}
				if err := r.enable(manager, u); err != nil {
					return fmt.Errorf("package %s: %w", p.Name, err)
				}
			}
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
