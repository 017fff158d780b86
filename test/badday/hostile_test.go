package badday

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/profiles"
)

// hostile words mean something to a parser somewhere behind the spec.
var hostile = []string{"a\nb", "a\rb", "a\x00b", "%n", `a"b`, `a'b`, `a\b`, "$(id)", "`id`", "\n[Service]\nExecStart=/bin/false\n", "x\n}\nflush ruleset\n", "\u202egnp", "{{.Node}}",
	strings.Repeat("a", 4096), " ", "-", "../../etc/passwd", "#", ";", "é", "a b", "${HOME}", "--help", "\t", "a,b", "a=b"}

// sound are items of lists that are well but for the word that goes into them.
var sound = map[reflect.Type]any{
	reflect.TypeFor[spec.File](): spec.File{Path: "/etc/hostile", Content: "x", Mode: "0644"},
	reflect.TypeFor[spec.Unit](): spec.Unit{Name: "hostile.service", Content: "[Service]\nExecStart=/bin/true\n", WantedBy: "multi-user.target"},
	reflect.TypeFor[spec.User](): spec.User{Name: "ann", UID: 1000, Shell: "/bin/sh"},
}

// field is one place of a node that holds a text.
type field struct {
	name string
	set  func(n *spec.Node, word string)
}

// fields finds every text in a node's type: plain, in lists, as key and as value
// of maps, and in lists of structs.
func fields(t reflect.Type, name string, at func(*spec.Node) reflect.Value) []field {
	var out []field
	switch t.Kind() {
	case reflect.String:
		out = append(out, field{name, func(n *spec.Node, w string) { at(n).SetString(w) }})
	case reflect.Slice:
		out = fields(t.Elem(), name+"[]", func(n *spec.Node) reflect.Value {
			v := at(n)
			if v.Len() == 0 {
				one := reflect.MakeSlice(t, 1, 1)
				if sound, ok := sound[t.Elem()]; ok {
					one.Index(0).Set(reflect.ValueOf(sound))
				}
				v.Set(one)
			}
			return v.Index(0)
		})
	case reflect.Map:
		out = append(out, field{name + "{key}", func(n *spec.Node, w string) { at(n).Set(reflect.ValueOf(map[string]string{w: "1"})) }},
			field{name + "{value}", func(n *spec.Node, w string) {
				at(n).Set(reflect.ValueOf(map[string]string{"vm.max_map_count": w}))
			}})
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				continue
			}
			out = append(out, fields(f.Type, strings.TrimPrefix(name+"."+strings.Split(f.Tag.Get("json"), ",")[0], "."), func(n *spec.Node) reflect.Value { return at(n).Field(i) })...)
		}
	}
	return out
}

func loadWith(t *testing.T, role string, set func(*spec.Node)) (*spec.Node, error) {
	t.Helper()
	n, found := spec.Load(spec.Input{Role: role, Profiles: profiles.Files})
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	set(n)
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	n, found = spec.Load(spec.Input{Role: role, Profiles: profiles.Files, Files: []spec.Document{{Name: "node.yaml", Data: text}}})
	return n, found.Err()
}

func decide(t *testing.T, n *spec.Node) *plan.Plan {
	t.Helper()
	p, err := plan.Make(n, []lock.Pin{{Kind: lock.KindImage, Name: "registry.k8s.io/pause:3.10.2"}, {Kind: lock.KindImage, Name: "registry.k8s.io/kube-proxy:v1.37.2"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var directive = regexp.MustCompile(`^\s*([A-Za-z]+=|\[[A-Za-z]+\]|[a-z]+)`)

// shape is what a text is, its values apart: each line's first word.
func shape(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, directive.FindString(line))
	}
	return strings.Join(out, "\n")
}

// TestHostileWords puts each word into each field of a node. It is refused with
// one path and line, or the files of the node keep their shape, and those that
// changed are what their own parsers take.
func TestHostileWords(t *testing.T) {
	const name = "a hostile word in a field of the spec"
	all := fields(reflect.TypeFor[spec.Node](), "", func(n *spec.Node) reflect.Value { return reflect.ValueOf(n).Elem() })
	if len(all) < 30 {
		t.Fatalf("found %d fields only", len(all))
	}
	plain, err := loadWith(t, "master", func(*spec.Node) {})
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, f := range decide(t, plain).Files {
		before[f.Path] = f.Text
	}
	accepted := 0
	for _, f := range all {
		for _, word := range hostile {
			n, err := loadWith(t, "master", func(n *spec.Node) { f.set(n, word) })
			if err != nil {
				line := strings.SplitN(err.Error(), "\n", 2)[0]
				held(t, name, strings.HasPrefix(line, "node.yaml:1") && len(line) < 1000, "%s = %.40q: refused without saying where: %.300s", f.name, word, line)
				continue
			}
			accepted++
			var moved []string
			p := decide(t, n)
			for _, file := range p.Files {
				was, ok := before[file.Path]
				if !ok || was == file.Text || strings.HasSuffix(file.Path, ".json") && json.Valid([]byte(file.Text)) {
					continue
				}
				lists := f.name == "boot.modules[]" || f.name == "firewall.allow[]" || strings.HasPrefix(f.name, "boot.sysctls")
				if shape(was) != shape(file.Text) && (!lists || strings.Contains(word, "\n")) {
					moved = append(moved, file.Path)
				}
				if err := parse(t, file.Path, file.Text); err != nil {
					moved = append(moved, fmt.Sprintf("%s: %v", file.Path, err))
				}
			}
			held(t, name, len(moved) == 0, "%s = %.40q moved %v", f.name, word, moved)
		}
	}
	t.Logf("%d fields, %d words, %d accepted", len(all), len(hostile), accepted)
}

// parse gives a changed file to the program that reads it on the node.
func parse(t *testing.T, path, text string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	switch {
	case strings.HasSuffix(path, ".service") || strings.HasSuffix(path, ".mount"):
		return run.Run(t.Context(), run.Cmd{Name: "systemd-analyze", Args: []string{"verify", "--man=no", "--recursive-errors=no", file}})
	case strings.HasSuffix(path, ".nft"):
		if os.Getuid() == 0 {
			return run.Run(t.Context(), run.Cmd{Name: "nft", Args: []string{"-c", "-f", file}})
		}
		return run.Run(t.Context(), run.Cmd{Name: "unshare", Args: []string{"--net", "--map-root-user", "nft", "-c", "-f", file}})
	}
	return nil
}
