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
		"variant: fcos\nversion: 1.4.0\nstorage: {files: [{path: relative}]}\n":     "butane does not accept it",
		"#include\nhttp://a.example/\n":                                             "it is a list of addresses",
		"#!/bin/sh\n: x\n":                                                          "it is a script",
		"## template: jinja\n#cloud-config\nhostname: {{ v1.name }}\n":              "it is a template of jinja",
		"Content-Type: multipart/mixed; boundary=\"=\"\nMIME-Version: 1.0\n\n--=\n": "it is several parts in one",
		"\x1f\x8b\x08\x00":                                                          "it is packed by gzip",
		"#cloud-config\nwrite_files: []\nntp: {}\nwrite_files: []\n":                "a.txt: line 4: write_files is there twice",
		"#cloud-config\nx: &x {path: /a}\nwrite_files:\n- {<<: *x, content: a}\n":   "line 4: a merge key",
		"#cloud-config\n[a, b]: c\n":                                                "line 2: a key that is no word",
		strings.Repeat("a", maxConfig+1):                                            "at most 1048576",
	} {
		if _, err := Read("a.txt", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

// TestNothingIsLost: what cannot be carried is a finding with its line, and what can is
// what the engine would have made.
func TestNothingIsLost(t *testing.T) {
	file := func(rest string) string { return "#cloud-config\nwrite_files:\n- path: /etc/a\n  " + rest + "\n" }
	unit := func(install string) string {
		return "variant: fcos\nversion: 1.5.0\nsystemd:\n  units:\n  - name: a.service\n    enabled: true\n    contents: |\n      [Service]\n      ExecStart=/bin/true\n      [Install]\n      " + strings.ReplaceAll(install, "\n", "\n      ") + "\n"
	}
	for text, want := range map[string]string{ // the file's mode and content, or the finding
		file("content: x"):                           "644 x",
		file("content: !!binary aGVsbG8="):           "644 hello",
		file("content: x\n  permissions: 0600"):      "600 x",
		file("content: x\n  permissions: '0600'"):    "600 x",
		file("content: x\n  permissions: '600'"):     "600 x",
		file("content: x\n  permissions: 384"):       "600 x",
		file("content: x\n  permissions: 600"):       "a:3:3: mode of \"/etc/a\": set-uid",
		file("content: x\n  defer: true"):            "644 x",
		file("content: [x]"):                         "a:4:12: write_files.content: want a text",
		file("content: x\n  mode: '0600'"):           "a:5:9: write_files.mode: a spec has no word",
		"\ufeff" + file("content: x"):                "644 x",
		"#cloud-config\nntp: {enabled: false}\n":     "a:2:16: ntp.enabled: a node keeps time",
		unit("WantedBy=multi-user.target"):           "",
		unit("WantedBy=a.target b.target"):           "a:6:14: systemd.units: \"a.service\" is enabled, and by more than one target",
		unit("WantedBy=a.target\nWantedBy=b.target"): "by more than one target",
		unit("WantedBy=a.target\nAlias=b.service"):   "a spec has no word for Alias=",
		unit("RequiredBy=a.target"):                  "a spec has no word for RequiredBy=",
		unit("WantedBy=a.target\nAlso=b.service"):    "a spec has no word for Also=",
		unit("WantedBy=a.target\nDefaultInstance=b"): "a spec has no word for DefaultInstance=",
		`{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/etc/a", "contents": {"source": "data:,x", "verification": {"hash": "sha512-` + strings.Repeat("0", 128) + `"}}}]}}`:                                 "has not the digest",
		`{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/etc/a", "contents": {"source": "data:,x", "verification": {"hash": "sha256-2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}}]}}`: "644 x",
	} {
		d, err := Read("a", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := ""
		for _, f := range d.node.Files {
			mode := "644"
			if f.Mode.Value != "" {
				mode = strings.TrimPrefix(f.Mode.Value, "0")
			}
			got = mode + " " + f.Content
		}
		for _, f := range d.Found {
			got = f.String()
		}
		if want != got && (want == "" || !strings.Contains(got, want)) || len(d.Found) > 1 {
			t.Errorf("%q:\n%s\nwant %s", text, got, want)
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
