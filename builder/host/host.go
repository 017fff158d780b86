// Package host says what a node is on an operating system that imgbuild did not
// build: which of the node tree's files a config writes and where, which come in the
// payload (a system extension, UAPI Extension Image specification), which units are
// enabled and masked, and what is left to the host, with the reason. It is pure.
package host

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Node is a node on a host.
type Node struct {
	OS      OS
	Role    string
	ride    bool             // the container images ride along
	Files   []component.File // that the config writes, by path, as they lie on the host
	Payload []component.File // that the payload brings, at their own paths
	Images  []component.File // that the payload with the container images brings
	Enable  []component.Unit
	Mask    []string
	Cmdline []string // kernel command line words that the config adds
	// Packages are those that the OS's package manager has to install, where it has one.
	Packages []string
	Left     []Left // what the host has or does in its own way
	Join     Join
}

// Left is a part of the node tree that the host does not get.
type Left struct {
	What string // a path, "unit NAME", "mask NAME" or "cmdline WORD"
	Why  string
}

// place is where a part of the node tree goes.
type place int

const (
	byConfig  place = iota // the config writes it
	byPayload              // it comes with the programs
	byImages               // it comes with the container images, or not at all
	left                   // the host has its own
)

// rule places what begins with a path. To is what takes the prefix's place on the host.
type rule struct {
	prefix string
	place  place
	to     string
	why    string
}

const (
	ownDisk    = "the host lays out its own disk; its /etc and /var live on"
	ownNet     = "the host's network is its own, or its provider's"
	ownImages  = "container images are pulled here; with `host.images` they ride along, and this with them"
	ownTime    = "the host keeps time in its own way; time.servers reach systemd-timesyncd where that is it"
	ownLogin   = "the host makes its own SSH keys and says who may log in"
	ownPresets = "a preset for every unit is for a system that is all ours"
	ownBoot    = "the host boots in its own way"
	ownRoot    = "the disk image's root never changes, so nothing on it may try; a host changes"
	ownUpkeep  = "the host keeps itself up to date in its own way"
)

// unitsLeft and masksLeft are the units that a disk image starts, or never starts,
// and a host does as it likes.
var (
	unitsLeft = map[string]string{
		"var.mount": ownDisk, "systemd-growfs@var.service": ownDisk, "etc-kubernetes.mount": ownDisk, "etc-cni-net.d.mount": ownDisk,
		"systemd-networkd.service": ownNet, "systemd-networkd.socket": ownNet, "systemd-networkd-wait-online.service": ownNet, "systemd-resolved.service": ownNet,
		"ssh.service": ownLogin, "imgbuild-sshkeys.service": ownLogin, "systemd-timesyncd.service": ownTime,
	}
	masksLeft = map[string]string{
		"apt-daily.service": ownUpkeep, "apt-daily.timer": ownUpkeep, "apt-daily-upgrade.service": ownUpkeep, "apt-daily-upgrade.timer": ownUpkeep,
		"dpkg-db-backup.service": ownUpkeep, "dpkg-db-backup.timer": ownUpkeep, "man-db.service": ownUpkeep, "man-db.timer": ownUpkeep,
		"e2scrub_all.service": ownDisk, "e2scrub_all.timer": ownDisk, "e2scrub_reap.service": ownDisk,
		"systemd-firstboot.service": ownBoot, "systemd-machine-id-commit.service": ownBoot, "systemd-pcrmachine.service": ownBoot, "serial-getty@ttyS0.service": ownLogin, "serial-getty@ttyAMA0.service": ownLogin,
		"systemd-update-done.service": ownRoot, "ldconfig.service": ownRoot, "systemd-hwdb-update.service": ownRoot, "systemd-journal-catalog-update.service": ownRoot,
		"modprobe@dm_mod.service": ownBoot, "systemd-remount-fs.service": ownBoot, "systemd-tmpfiles-setup-dev-early.service": ownBoot, "systemd-udev-load-credentials.service": ownBoot,
		"systemd-networkd-persistent-storage.service": ownNet, "modprobe@drm.service": ownBoot, "modprobe@fuse.service": ownBoot, "sys-fs-fuse-connections.mount": ownBoot,
		"ssh.service": ownLogin, "ssh.socket": ownLogin,
	}
)

// rules are asked in order; the first that fits counts.
var rules = []rule{
	{"/etc/resolv.conf", left, "", ownNet},
	{"/etc/ssh/", left, "", ownLogin},
	{"/etc/", byConfig, "/etc/", ""},

	{"/usr/lib/repart.d/", left, "", ownDisk},
	{"/usr/lib/systemd/system/var.mount", left, "", ownDisk},
	{"/usr/lib/systemd/system.conf.d/", left, "", ownDisk},
	{"/usr/lib/systemd/system/etc-", left, "", ownDisk},
	{"/usr/lib/systemd/system/systemd-udev-trigger.service.d/", left, "", ownDisk},
	{"/usr/lib/systemd/system/systemd-growfs@var.service.d/", left, "", ownDisk},
	{"/usr/lib/tmpfiles.d/imgbuild-state.conf", left, "", ownDisk},
	{"/usr/lib/systemd/system/imgbuild-install.", left, "", ownDisk},
	{"/usr/lib/systemd/system/imgbuild-images.service", byImages, "", ownImages},
	{"/usr/lib/systemd/system/containerd.service.d/20-images.conf", byImages, "", ownImages},
	{"/usr/lib/systemd/system/imgbuild-sshkeys.service", left, "", ownLogin},
	{"/usr/lib/systemd/network/80-imgbuild-uplink.network", left, "", ownNet},
	{"/usr/lib/systemd/networkd.conf.d/", left, "", ownNet},
	{"/usr/lib/systemd/resolved.conf.d/", left, "", ownNet},
	{"/usr/lib/systemd/system/systemd-networkd-wait-online.service.d/", left, "", ownNet},
	{"/usr/lib/systemd/system/systemd-resolved.service.d/", left, "", ownNet},
	{"/usr/lib/systemd/system-preset/", left, "", ownPresets},

	// Before the payload is merged: the filter, and what the kernel is told.
	{"/usr/lib/systemd/system/imgbuild-firewall.service", byConfig, "/etc/systemd/system/imgbuild-firewall.service", ""},
	{"/usr/lib/systemd/system/imgbuild-vip.service", byConfig, "/etc/systemd/system/imgbuild-vip.service", ""}, // of masters: the payload is of both
	{"/usr/lib/systemd/system/imgbuild-.service.d/", byConfig, "/etc/systemd/system/imgbuild-.service.d/", ""},
	{"/usr/lib/systemd/system/systemd-", byConfig, "/etc/systemd/system/systemd-", ""},
	{"/usr/lib/systemd/system/", byPayload, "", ""},
	{"/usr/lib/systemd/", byConfig, "/etc/systemd/", ""},
	{"/usr/lib/modules-load.d/", byConfig, "/etc/modules-load.d/", ""},
	{"/usr/lib/modprobe.d/", byConfig, "/etc/modprobe.d/", ""},
	{"/usr/lib/sysctl.d/", byConfig, "/etc/sysctl.d/", ""},
	{"/usr/lib/tmpfiles.d/", byConfig, "/etc/tmpfiles.d/", ""},

	{"/usr/bin/", byPayload, "", ""},
	{"/usr/lib/cni/", byPayload, "", ""},
	{"/usr/lib/imgbuild/", byPayload, "", ""},
}

// Of places every part of a plan's node tree on an operating system. A part that no
// rule speaks of is a mistake of the builder, named.
func Of(p *plan.Plan, os OS) (*Node, error) {
	n := &Node{OS: os, Role: p.Role, ride: p.Spec.Host.Images, Packages: packagesOf(plan.Ask(p.Spec)[0].Args)}
	if p.Spec.Host.Verity {
		n.Packages = append(n.Packages, "libcryptsetup12") // what systemd opens hash trees by
	}
	for _, f := range p.Files {
		if err := n.put(f); err != nil {
			return nil, err
		}
	}
	for _, u := range p.Units.Enable {
		if why := unitsLeft[u.Name]; why != "" {
			n.Left = append(n.Left, Left{"unit " + u.Name, why})
			continue
		}
		n.Enable = append(n.Enable, u)
	}
	for _, name := range p.Units.Mask {
		if why := masksLeft[name]; why != "" {
			n.Left = append(n.Left, Left{"mask " + name, why})
			continue
		}
		n.Mask = append(n.Mask, name)
	}
	for _, word := range p.Cmdline {
		why := ownBoot
		if strings.HasPrefix(word, "transparent_hugepage=") {
			if why = os.cmdline; why == "" {
				n.Cmdline = append(n.Cmdline, word)
				continue
			}
		}
		n.Left = append(n.Left, Left{"cmdline " + word, why})
	}
	slices.SortFunc(n.Files, func(a, b component.File) int { return strings.Compare(a.Path, b.Path) })
	return n, nil
}

func (n *Node) put(f component.File) error {
	i := slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(f.Path, r.prefix) })
	if i < 0 {
		return fmt.Errorf("%s: no rule says what becomes of it on a host", f.Path)
	}
	r := rules[i]
	switch {
	case r.place == byImages && n.ride:
		n.Images = append(n.Images, f)
	case r.place == left, r.place == byImages:
		n.Left = append(n.Left, Left{f.Path, r.why})
	case r.place == byPayload:
		n.Payload = append(n.Payload, f)
	case f.Part != "":
		return fmt.Errorf("%s: a config cannot hold a program", f.Path)
	case f.Path == config.FactsFile && !n.ride:
		text, err := offBoard(f.Text)
		f.Text = text
		n.Files = append(n.Files, f)
		return err
	default:
		f.Path = r.to + strings.TrimPrefix(f.Path, r.prefix)
		if strings.HasPrefix(f.Path, "/etc/tmpfiles.d/") { // on a disk of ours, /opt is a link
			f.Text = strings.ReplaceAll(f.Text, " /var/opt/", " "+n.OS.opt+"/")
		}
		n.Files = append(n.Files, f)
	}
	return nil
}

// offBoard is what a node says of itself where it has no container image on board: the
// agent looks for none, and they are pulled.
func offBoard(text string) (string, error) {
	var f config.Facts
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return "", err
	}
	f.Images = []string{}
	out, err := json.MarshalIndent(f, "", " ")
	return string(out) + "\n", err
}
