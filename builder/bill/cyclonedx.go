package bill

import (
	"bytes"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"

	"github.com/imgbuild/imgbuild/internal/repro"
)

var cycloneTypes = map[Kind]cyclonedx.ComponentType{
	Package: cyclonedx.ComponentTypeLibrary, Part: cyclonedx.ComponentTypeApplication, Module: cyclonedx.ComponentTypeLibrary,
	Container: cyclonedx.ComponentTypeContainer, Own: cyclonedx.ComponentTypeApplication,
}

// CycloneDX is the bill as a CycloneDX 1.6 document in JSON. A component's files
// are the occurrences in its evidence.
func (b *Bill) CycloneDX() ([]byte, error) {
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = "urn:uuid:" + repro.UUID("cyclonedx", b.ID).String()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: repro.Epoch().Format("2006-01-02T15:04:05Z"),
		Tools:     &cyclonedx.ToolsChoice{Components: &[]cyclonedx.Component{{Type: cyclonedx.ComponentTypeApplication, Name: "imgbuild"}}},
		Component: &cyclonedx.Component{BOMRef: "image", Type: cyclonedx.ComponentTypeOS, Name: b.Name, Version: b.Version},
	}
	var components []cyclonedx.Component
	var dependencies []cyclonedx.Dependency
	var all []string
	for _, c := range b.Components {
		components = append(components, cyclone(c))
		all = append(all, c.Reference())
		if len(c.Needs) > 0 {
			needs := c.Needs
			dependencies = append(dependencies, cyclonedx.Dependency{Ref: c.Reference(), Dependencies: &needs})
		}
	}
	dependencies = append(dependencies, cyclonedx.Dependency{Ref: "image", Dependencies: &all})
	bom.Components, bom.Dependencies = &components, &dependencies
	var out bytes.Buffer
	e := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	err := e.EncodeVersion(bom, cyclonedx.SpecVersion1_6)
	return out.Bytes(), err
}

func cyclone(c *Component) cyclonedx.Component {
	out := cyclonedx.Component{BOMRef: c.Reference(), Type: cycloneTypes[c.Kind], Name: c.Name, Version: c.Version, PackageURL: c.PURL}
	if c.Supplier != "" {
		out.Supplier = &cyclonedx.OrganizationalEntity{Name: c.Supplier}
	}
	if digest, ok := strings.CutPrefix(c.Digest, "sha256:"); ok {
		out.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: digest}}
	}
	if len(c.Files) > 0 {
		var where []cyclonedx.EvidenceOccurrence
		for _, p := range c.Files {
			where = append(where, cyclonedx.EvidenceOccurrence{Location: "/" + p})
		}
		out.Evidence = &cyclonedx.Evidence{Occurrences: &where}
	}
	return out
}
