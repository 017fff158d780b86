// Package images is the catalogue of base operating systems, as data: one folder
// each, with the definition and a README. What is not here can be given as an
// OCI image.
package images

import (
	"embed"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"
)

//go:embed */base.yaml */keyring.pgp
var files embed.FS

// Base is one operating system of the catalogue.
type Base struct {
	Name   string   `json:"name"`
	Doc    string   `json:"doc"`
	Suite  string   `json:"suite"`  // the distribution's name of the release
	Arches []string `json:"arches"` // as Debian spells them
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

// Keyring is the OpenPGP keys that sign for the base's packages; empty where there is no such base.
func Keyring(name string) []byte {
	keys, _ := files.ReadFile(name + "/keyring.pgp")
	return keys
}
