package convert

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the specs anew")

// TestConvert converts each file of testdata and holds the spec and the findings
// against those beside it.
func TestConvert(t *testing.T) {
	for _, name := range []string{"site.bu", "site.ign", "site.cloud-config"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Read(name, text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Spec()
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			b.Write(got)
			for _, f := range d.Found {
				b.WriteString("# " + f.String() + "\n")
			}
			if *update {
				if err := os.WriteFile(file+".yaml", []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestOldIgnition carries what Flatcar's older configs say.
func TestOldIgnition(t *testing.T) {
	d, err := Read("old.ign", []byte(`{"ignition": {"version": "2.3.0"},
 "storage": {"files": [{"filesystem": "root", "path": "/etc/motd.d/site", "mode": 420, "contents": {"source": "data:,hello"}}]}}`))
	if err != nil || len(d.Found) > 0 || len(d.node.Files) != 1 || d.node.Files[0].Path != "/etc/motd.d/site" {
		t.Errorf("%v %+v", err, d)
	}
}

// TestNoConfig has one clear error for what is none.
func TestNoConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "this is no config",
		"just words":                         "this is no config",
		"a: [":                               "a.txt: yaml",
		"hostname: a\n":                      "neither Ignition",
		`{"ignition": {"version": "3.9.0"}}`: "ignition does not accept it",
		`{"ignition": {"version": "2.9.0"}}`: "a.txt: as Ignition 2.9.0",
		"variant: fcos\nversion: 9.9.9\n":    "butane does not accept it",
		"variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: relative}]}\n": "butane does not accept it",
		"#include\nhttp://a.example/\n":                                         "this is no config",
		strings.Repeat("a", maxConfig+1):                                        "at most 1048576",
	} {
		if _, err := Read("a.txt", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"site.bu", "site.ign", "site.cloud-config"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := Read("a", text); err == nil {
			if _, err := d.Spec(); err != nil {
				t.Error(err)
			}
		}
	})
}
