package bill

import (
	"encoding/json"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Subject is a file that the statement speaks of.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"` // algorithm → hex
}

// SHA256 is the subject of a file with that digest, in hex.
func SHA256(name, digest string) Subject {
	return Subject{name, map[string]string{"sha256": digest}}
}

// The in-toto Statement v1 with the SLSA Provenance v1 predicate. The types are
// here, and not the ones of in-toto's own module, because that writes JSON by way
// of protobuf, which by design does not write the same bytes twice.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []Subject  `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     provenance `json:"predicate"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		InternalParameters   map[string]any `json:"internalParameters"`
		ResolvedDependencies []dependency   `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitempty"`
		} `json:"builder"`
		Metadata map[string]string `json:"metadata"`
	} `json:"runDetails"`
}

type dependency struct {
	URI    string            `json:"uri,omitempty"`
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Provenance is the in-toto statement about the subjects: what they were built
// from, by what, and how it was said. A spec holds no secret, so it is in whole.
func Provenance(p *plan.Plan, subjects []Subject) ([]byte, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", Subject: subjects, PredicateType: "https://slsa.dev/provenance/v1"}
	d := &s.Predicate.BuildDefinition
	d.BuildType = "https://github.com/imgbuild/imgbuild/build/v1"
	d.ExternalParameters = map[string]any{"role": p.Role, "arch": p.Arch, "spec": p.Spec}
	d.InternalParameters = map[string]any{"plan": p.ID}
	for _, pin := range p.Inputs {
		d.ResolvedDependencies = append(d.ResolvedDependencies, dependency{URI: uri(pin), Name: string(pin.Kind) + "/" + pin.Name + "@" + pin.Version, Digest: digestOf(pin.Digest)})
	}
	r := &s.Predicate.RunDetails
	r.Builder.ID, r.Builder.Version = "https://github.com/imgbuild/imgbuild", p.Tools
	r.Metadata = map[string]string{"invocationId": repro.UUID("invocation", p.ID).String()}
	text, err := json.MarshalIndent(s, "", " ")
	return append(text, '\n'), err
}

func uri(pin lock.Pin) string {
	if pin.Source == "gomodule" {
		return "pkg:golang/" + pin.URL
	}
	return pin.URL
}

// digestOf names a digest's algorithm: of "h1:…", as in go.sum, it is dirHash1.
func digestOf(d string) map[string]string {
	name, value, _ := strings.Cut(d, ":")
	if name == "h1" {
		name = "dirHash1"
	}
	return map[string]string{name: value}
}
