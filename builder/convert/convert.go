// Package convert reads a config that somebody has for another system (Butane, Ignition,
// cloud-init's cloud-config) and says the same in a spec: files, units, users, keys. What
// a spec cannot say is a finding with its line. It is pure.
package convert

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// The formats that are read.
const (
	Butane      = "butane"
	Ignition    = "ignition"
	CloudConfig = "cloud-config"
)

// A spec as far as it is written here.
type (
	node struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Base       *base  `yaml:"base,omitempty"`
		SSH        *ssh   `yaml:"ssh,omitempty"`
		Boot       *boot  `yaml:"boot,omitempty"`
		Time       *clock `yaml:"time,omitempty"`
		Files      []file `yaml:"files,omitempty"`
		Units      []unit `yaml:"units,omitempty"`
		Users      []user `yaml:"users,omitempty"`
	}
	base struct {
		Packages []string `yaml:"packages"`
	}
	ssh struct {
		Enabled bool `yaml:"enabled"`
	}
	boot struct {
		Cmdline []string `yaml:"cmdline"`
	}
	clock struct {
		Servers []string `yaml:"servers"`
	}
	file struct {
		Path    string    `yaml:"path"`
		Mode    yaml.Node `yaml:"mode,omitempty"`
		Content string    `yaml:"content"`
	}
	unit struct {
		Name     string `yaml:"name"`
		WantedBy string `yaml:"wantedBy,omitempty"`
		Mask     bool   `yaml:"mask,omitempty"`
		Content  string `yaml:"content,omitempty"`
	}
	user struct {
		Name   string   `yaml:"name"`
		UID    int      `yaml:"uid"`
		Groups []string `yaml:"groups,omitempty"`
		Shell  string   `yaml:"shell,omitempty"`
		Keys   []string `yaml:"sshAuthorizedKeys,omitempty"`
	}
)

// Draft is a spec in the making.
type Draft struct {
	Format string
	Found  []spec.Finding // what is not carried

	name     string // of what is read
	node     node
	from     map[string]*yaml.Node // where what stands at a path of the spec was written
	tmpfiles []line
}

// line is one of tmpfiles.d(5), and the file of the spec that it needs, if any.
type line struct{ text, needs string }

// maxConfig bounds what is read.
const maxConfig = 1 << 20

// Read converts a config. The error says that it is none of the known ones, or is
// broken; what is well but cannot be carried is in Found.
func Read(name string, text []byte) (*Draft, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, len(text), maxConfig)
	}
	d := &Draft{name: name, node: node{APIVersion: spec.APIVersion, Kind: spec.Kind}, from: map[string]*yaml.Node{}}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark says nothing
	root, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, cmp.Or(otherwise(text), err))
	}
	switch {
	case bytes.HasPrefix(text, []byte("#cloud-config")):
		d.Format = CloudConfig
		d.cloudConfig(root)
	case find(root, "ignition") != nil:
		d.Format = Ignition
		err = d.ignition(root, text)
	case find(root, "variant") != nil:
		d.Format = Butane
		err = d.butane(root, text)
	default:
		err = cmp.Or(otherwise(text), errors.New("neither Ignition (\"ignition\"), Butane (\"variant\") nor a cloud-config (first line \"#cloud-config\")"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	slices.SortStableFunc(d.Found, func(a, b spec.Finding) int { return a.Line - b.Line })
	return d, nil
}

// parse reads YAML, of which JSON is a part.
func parse(text []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("this is no config: want keys and values")
	}
	return doc.Content[0], clear(doc.Content[0])
}

// clear wants every key once, and each to be a word: of two the reader takes the last.
func clear(n *yaml.Node) error {
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			switch {
			case c.Kind != yaml.ScalarNode:
				return fmt.Errorf("line %d: a key that is no word", c.Line)
			case c.ShortTag() == "!!merge":
				return fmt.Errorf("line %d: a merge key (<<): write out the keys that it brings", c.Line)
			case seen[c.Value]:
				return fmt.Errorf("line %d: %s is there twice, and the first would be lost: join them", c.Line, short(c.Value))
			}
			seen[c.Value] = true
		}
		if err := clear(c); err != nil {
			return err
		}
	}
	return nil
}

// otherwise says what a text is that cloud-init takes, and that is no cloud-config; nil:
// none of these.
func otherwise(text []byte) error {
	for _, k := range []struct{ begins, what string }{
		{"## template: jinja", "a template of jinja: `cloud-init devel render` makes a cloud-config of it"},
		{"Content-Type: multipart", "several parts in one (MIME): convert each by itself"},
		{"MIME-Version:", "several parts in one (MIME): convert each by itself"},
		{"#include", "a list of addresses: convert what they give"},
		{"#!", "a script: bring it by files, and run it from a unit (units)"},
		{"\x1f\x8b", "packed by gzip: unpack it first"},
	} {
		if bytes.HasPrefix(bytes.ToLower(text), bytes.ToLower([]byte(k.begins))) {
			return errors.New("it is " + k.what)
		}
	}
	return nil
}

// Spec is what was carried, as a file for -f.
func (d *Draft) Spec() ([]byte, error) {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Converted from %s (%s).\n", strconv.Quote(path.Base(d.name)), d.Format)
	n := d.node
	if lines := d.lines(); lines != "" {
		n.Files = append(slices.Clone(n.Files), file{Path: "/usr/lib/tmpfiles.d/converted.conf", Content: lines})
	}
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// lines are those of tmpfiles.d(5) whose files are carried.
func (d *Draft) lines() string {
	var b strings.Builder
	for _, l := range d.tmpfiles {
		if l.needs == "" || slices.ContainsFunc(d.node.Files, func(f file) bool { return f.Path == l.needs }) {
			b.WriteString(l.text + "\n")
		}
	}
	return b.String()
}

// Lines moves findings about the spec to where its values were written in the source.
func (d *Draft) Lines(found []spec.Finding) (out []spec.Finding) {
	for _, f := range found {
		for at := f.Path; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
			if n := d.from[at]; n != nil {
				f.Pos = spec.Pos{File: d.name, Line: n.Line, Column: n.Column}
				break
			}
		}
		out = append(out, f)
	}
	return out
}

// Drop takes out of the draft what findings speak of, and adds them to Found.
func (d *Draft) Drop(found []spec.Finding) {
	d.Found = append(d.Found, d.Lines(found)...)
	gone := func(list string, i int) bool {
		return slices.ContainsFunc(found, func(f spec.Finding) bool {
			at := fmt.Sprintf("%s[%d]", list, i)
			return f.Path == at || strings.HasPrefix(f.Path, at+".")
		})
	}
	d.node.Files = without(d, d.node.Files, "files", gone)
	d.node.Units = without(d, d.node.Units, "units", gone)
	d.node.Users = without(d, d.node.Users, "users", gone)
	if d.node.Base != nil {
		d.node.Base.Packages = without(d, d.node.Base.Packages, "base.packages", gone)
	}
	if d.node.Boot != nil {
		d.node.Boot.Cmdline = without(d, d.node.Boot.Cmdline, "boot.cmdline", gone)
	}
	if d.node.Time != nil {
		d.node.Time.Servers = without(d, d.node.Time.Servers, "time.servers", gone)
	}
}

// without is a list without what is gone; what stays keeps where it came from.
func without[T any](d *Draft, all []T, list string, gone func(string, int) bool) (out []T) {
	for i, one := range all {
		from := d.from[fmt.Sprintf("%s[%d]", list, i)]
		if !gone(list, i) {
			d.from[fmt.Sprintf("%s[%d]", list, len(out))] = from
			out = append(out, one)
		}
	}
	return out
}

// miss is a finding: what stands at n is not carried.
func (d *Draft) miss(n *yaml.Node, at, message, hint string) {
	f := spec.Finding{Pos: spec.Pos{File: d.name}, Path: at, Message: message, Hint: hint}
	if n != nil {
		f.Line, f.Column = n.Line, n.Column
	}
	d.Found = append(d.Found, f)
}

// onVar are folders of the root that lie on /var on a node, and where.
var onVar = []struct{ dir, is string }{{"/opt/", "/var/opt/"}, {"/home/", "/var/home/"}, {"/root/", "/var/roothome/"}, {"/srv/", "/var/srv/"}, {"/var/", "/var/"}}

// real is where a path lies on a node, and whether it lies on /var, of which an image
// has nothing.
func real(p string) (string, bool) {
	for _, l := range onVar {
		if rest, ok := strings.CutPrefix(p, l.dir); ok {
			return l.is + rest, true
		}
	}
	return p, false
}

// factory is where tmpfiles.d(5) takes copies from.
const factory = "/usr/share/factory"

// owner is who a file belongs to; empty is root.
type owner struct{ user, group string }

func (o owner) root() bool {
	return (o.user == "" || o.user == "root" || o.user == "0") && (o.group == "" || o.group == "root" || o.group == "0")
}

func (o owner) words() string { return cmp.Or(o.user, "root") + " " + cmp.Or(o.group, "root") }

// file carries one file. What belongs on /var comes with the image as a copy that the
// first boot puts in its place.
func (d *Draft) file(n *yaml.Node, p string, mode uint32, content []byte, by owner) {
	if mode > 0o777 {
		d.miss(n, "mode of "+strconv.Quote(p), "set-uid, set-gid and sticky bits have no place in an image", "write 0755")
		return
	}
	where, onVar := real(p)
	verb := "z"
	if onVar {
		verb, p = "C", factory+where
	}
	if onVar || !by.root() {
		if !d.plain(n, where) {
			return
		}
		d.tmpfiles = append(d.tmpfiles, line{fmt.Sprintf("%s %s %04o %s -", verb, where, mode, by.words()), p})
	}
	d.from[fmt.Sprintf("files[%d]", len(d.node.Files))] = n
	f := file{Path: p, Content: string(content)}
	if mode != 0o644 {
		f.Mode = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: fmt.Sprintf("%04o", mode), Style: yaml.DoubleQuotedStyle}
	}
	d.node.Files = append(d.node.Files, f)
}

func (d *Draft) folder(n *yaml.Node, p string, mode uint32, by owner) {
	where, _ := real(p)
	if d.plain(n, where) {
		d.tmpfiles = append(d.tmpfiles, line{fmt.Sprintf("d %s %04o %s -", where, mode, by.words()), ""})
	}
}

func (d *Draft) link(n *yaml.Node, p, target string) {
	where, _ := real(p)
	if d.plain(n, where) && d.plain(n, target) {
		d.tmpfiles = append(d.tmpfiles, line{fmt.Sprintf("L+ %s - - - - %s", where, target), ""})
	}
}

// plain says whether a path can stand in tmpfiles.d(5) as it is.
func (d *Draft) plain(n *yaml.Node, p string) bool {
	odd := strings.IndexFunc(p, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`%"'\`, r)
	})
	if p == "" || odd >= 0 || path.Clean(p) != p {
		d.miss(n, "", "the path "+strconv.Quote(p)+" is none that tmpfiles.d takes as it is", "write it without spaces, quotes and percent signs")
		return false
	}
	return true
}

// user carries an account; keys open SSH.
func (d *Draft) user(n *yaml.Node, u user) {
	if u.Name == "root" {
		if len(u.Keys) > 0 {
			d.miss(n, "", "root's keys are not in an image", "put them into the node config: sshAuthorizedKeys")
		}
		return
	}
	if u.UID == 0 {
		u.UID = 1000
		for slices.ContainsFunc(d.node.Users, func(o user) bool { return o.UID == u.UID }) {
			u.UID++
		}
	}
	if len(u.Keys) > 0 {
		d.node.SSH = &ssh{true}
	}
	d.from[fmt.Sprintf("users[%d]", len(d.node.Users))] = n
	d.node.Users = append(d.node.Users, u)
}

// find is the value of a key of a mapping, or nil.
func find(n *yaml.Node, key string) *yaml.Node {
	if n = unaliased(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return unaliased(n.Content[i+1])
		}
	}
	return nil
}

// keyed is the item of a list of mappings where key has that value, or else the list.
func keyed(list *yaml.Node, key, value string) *yaml.Node {
	if list == nil {
		return nil
	}
	for _, item := range list.Content {
		if v := find(item, key); v != nil && v.Value == value {
			return unaliased(item)
		}
	}
	return list
}

func unaliased(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
