package output

import (
	"fmt"
	"os"
	"strings"
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

// TestPage holds the table against docs/formats.md.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range All() {
		if row := fmt.Sprintf("\n| `%s` | %s |", f.Name, f.Doc); !strings.Contains(string(page), row) {
			t.Errorf("docs/formats.md has no row %q", row)
		}
	}
}
