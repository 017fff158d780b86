package output

import (
	"testing"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/profiles"
)

// TestSpecKnowsEachFormat holds the table against what a spec may say.
func TestSpecKnowsEachFormat(t *testing.T) {
	for _, f := range All() {
		n, found := spec.Load(spec.Input{Role: "worker", Profiles: profiles.Files,
			Sets: []string{"output.formats=" + f.Name, "host.os=debian", "host.payload=https://files.example", "host.images=true"}})
		if n == nil || found.Err() != nil {
			t.Errorf("%s: %v", f.Name, found)
		}
	}
}
