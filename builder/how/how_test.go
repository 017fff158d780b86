package how

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

// TestScripts has the platforms' own readers, where they are installed, judge every script.
func TestScripts(t *testing.T) {
	for _, p := range All() {
		t.Run(p.Name, func(t *testing.T) {
			for _, role := range []string{"master", "worker"} {
				for _, format := range p.Formats {
					text, err := Write(p.Name, Image{File: "out/" + role + "." + format, Format: format, Role: role, Size: 3 << 30})
					if err != nil {
						t.Fatal(err)
					}
					file := filepath.Join(t.TempDir(), role+"-"+p.File)
					if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
					if strings.Contains(text, "{{"+"") || strings.Contains(text, "<no value>") {
						t.Errorf("%s has holes:\n%s", file, text)
					}
					switch filepath.Ext(p.File) {
					case ".sh":
						disktest.Tool(t, "shellcheck", file)
					case ".xml":
						disktest.Tool(t, "virt-xml-validate", file, "domain")
					case ".yaml":
						var v map[string]any
						if err := yaml.Unmarshal([]byte(text), &v); err != nil || v["kind"] != "VirtualMachine" {
							t.Errorf("%v\n%s", err, text)
						}
					}
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		platform string
		image    Image
		want     string
	}{
		"platform": {"virtualbox", Image{File: "a.raw", Format: "raw"}, "want one of libvirt"},
		"format":   {"azure", Image{File: "a.raw", Format: "raw"}, "azure does not take raw: build with --format vhd"},
		"role":     {"libvirt", Image{File: "a.raw", Format: "raw"}, "no image of a master or a worker"},
		"path":     {"libvirt", Image{File: "a b;$(id).raw", Format: "raw", Role: "worker"}, "want a path of letters"},
	} {
		if _, err := Write(c.platform, c.image); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}
