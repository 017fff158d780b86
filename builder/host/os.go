package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-version"
)

// OS is an operating system that reads a config.
type OS struct {
	Name string
	Doc  string

	variant string // of Butane
	reads   []reads
	opt     string // what /opt is: a folder, or a link to this one, which systemd-tmpfiles does not follow
	cmdline string // why a config cannot add words to the kernel's command line; empty: it can
}

// reads says which versions of the formats an OS reads from a release on. Ignition
// reads what is older than its own, so these are the oldest that say what is needed.
type reads struct{ from, butane, ignition string }

// All lists the operating systems.
func All() []OS {
	return []OS{
		// Butane has no variant for Debian; what is written is common to all.
		{Name: "debian", Doc: "Debian with cloud-init, or with Ignition in an image of yours", variant: "fcos", opt: "/opt", reads: []reads{{"13", "1.4.0", "3.3.0"}},
			cmdline: "neither cloud-init nor Ignition changes the boot loader of a Debian image"},
		{Name: "flatcar", Doc: "Flatcar Container Linux", variant: "flatcar", opt: "/opt", reads: []reads{{"3185.0.0", "1.0.0", "3.3.0"}}},
		{Name: "fcos", Doc: "Fedora CoreOS", variant: "fcos", opt: "/var/opt", reads: []reads{{"35", "1.4.0", "3.3.0"}}},
	}
}

// Names lists them by name.
func Names() (out []string) {
	for _, o := range All() {
		out = append(out, o.Name)
	}
	return out
}

// Find returns the OS of that name.
func Find(name string) (OS, error) {
	all := All()
	i := slices.IndexFunc(all, func(o OS) bool { return o.Name == name })
	if i < 0 {
		return OS{}, fmt.Errorf("no operating system is called %q; use %s", name, strings.Join(Names(), ", "))
	}
	return all[i], nil
}

// formats are the versions for a release of the OS; an empty one is the newest.
func (o OS) formats(release string) (reads, error) {
	newest := o.reads[0]
	if release == "" {
		return newest, nil
	}
	is, err := version.NewVersion(release)
	if err != nil {
		return reads{}, fmt.Errorf("release %q of %s: %w", release, o.Name, err)
	}
	for _, r := range o.reads {
		if !is.LessThan(version.Must(version.NewVersion(r.from))) {
			return r, nil
		}
	}
	return reads{}, fmt.Errorf("%s %s reads no format that is new enough; use %s or later", o.Name, release, o.reads[len(o.reads)-1].from)
}
