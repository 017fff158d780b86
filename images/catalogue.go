// Package images is the catalogue of base operating systems, as data: one folder
// each, with the definition and a README. What is not here can be given as an
// OCI image.
package images

import (
	"embed"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed */base.yaml */keyring.pgp
var files embed.FS

// Base is one operating system of the catalogue: packages as Debian makes them.
type Base struct {
	Name         string            `json:"name"`
	Doc          string            `json:"doc"`
	Distribution string            `json:"distribution"` // as people write it
	Suite        string            `json:"suite"`        // the distribution's name of the release
	Arches       []string          `json:"arches"`       // as Debian spells them
	Components   []string          `json:"components"`   // of the archive that packages may be from
	Archive      string            `json:"archive"`      // the folder that every mirror's address has
	Security     string            `json:"security"`     // the folder of its security updates, likewise
	HostKeyring  string            `json:"hostKeyring"`  // where a host of the distribution has the archive's keys
	Kernels      map[string]string `json:"kernels"`      // base.kernel → package
	Packages     map[string]string `json:"packages"`     // a package of Debian trixie → the one that has it here, where the names differ
}

// Names lists the catalogue, sorted.
func Names() []string {
	var out []string
	entries, _ := files.ReadDir(".") // an embedded root can always be read
	for _, e := range entries {
		out = append(out, e.Name())
	}
	slices.Sort(out)
	return out
}

// Find returns the base of that name.
func Find(name string) (Base, error) {
	var b Base
	if !slices.Contains(Names(), name) {
		return b, fmt.Errorf("no base is called %q; there is %v", name, Names())
	}
	raw, err := files.ReadFile(name + "/base.yaml")
	if err != nil {
		return b, err
	}
	if err := yaml.UnmarshalStrict(raw, &b); err != nil {
		return b, fmt.Errorf("images/%s/base.yaml: %w", name, err)
	}
	return b, nil
}

// Kernel is the package of one of base.kernel's kernels; empty where there is none.
func (b Base) Kernel(kind, arch string) string {
	return strings.ReplaceAll(b.Kernels[kind], "@ARCH@", arch)
}

// Package is what the base calls a package of Debian trixie.
func (b Base) Package(name string) string {
	if here, ok := b.Packages[name]; ok {
		return here
	}
	return name
}

// Keyring is the OpenPGP keys that sign for the base's packages; empty where there is no such base.
func Keyring(name string) []byte {
	keys, _ := files.ReadFile(name + "/keyring.pgp")
	return keys
}
