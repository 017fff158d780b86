package builder

import (
	"slices"

	"github.com/imgbuild/imgbuild/builder/convert"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/profiles"
)

// Converted is a config of another system as a spec.
type Converted struct {
	Format string         // butane, ignition or cloud-config
	Spec   []byte         // a file for Options.Files
	Found  []spec.Finding // what is not carried, by its line
}

// Convert reads a config that somebody has for another system, and lays it out as a
// spec that a worker's or a master's profile takes.
func Convert(name string) (*Converted, error) {
	text, err := readDocument(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "reading the config: %w", err)
	}
	draft, err := convert.Read(name, text)
	if err != nil {
		return nil, fault.Wrap(fault.Spec, err)
	}
	c := &Converted{Format: draft.Format}
	for last := 0; ; {
		if c.Spec, err = draft.Spec(); err != nil {
			return nil, err
		}
		in := spec.Input{Role: "worker", Profiles: profiles.Files, Files: []spec.Document{{Name: name, Data: c.Spec}}}
		_, found := spec.Load(in)
		wrong := slices.DeleteFunc(slices.Clone(found), func(f spec.Finding) bool { return f.Severity != spec.Error })
		switch {
		case len(wrong) == 0:
			c.Found = draft.Found
			return c, nil
		case len(c.Spec) == last: // nothing was left out for it
			return nil, fault.New(fault.Spec, "%s: what comes out is no spec: %s", name, wrong[0].Message)
		}
		last = len(c.Spec)
		draft.Drop(wrong) // what a spec does not take is not carried either
	}
}
