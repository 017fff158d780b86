package host

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	translate "github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
	ignition "github.com/coreos/ignition/v2/config/v3_3"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Payload is where a host finds the payload.
type Payload struct {
	Name   string // kubernetes-1.37.2-amd64, of the extension
	URL    string
	SHA256 string // hex
	// RootHash is that of its own dm-verity tree, hex; empty: it has none.
	RootHash string
}

// file is the payload's name on the host.
func (p Payload) file() string { return "/etc/extensions/" + p.Name + ".raw" }

// hashFile is where systemd looks for its root hash.
func (p Payload) hashFile() string { return "/etc/extensions/" + p.Name + ".roothash" }

// The Butane schema as far as it is used (Butane's configuration specification).
type (
	butane struct {
		Variant   string        `yaml:"variant"`
		Version   string        `yaml:"version"`
		Arguments *arguments    `yaml:"kernel_arguments,omitempty"`
		Storage   storage       `yaml:"storage"`
		Systemd   butaneSystemd `yaml:"systemd"`
	}
	arguments struct {
		ShouldExist []string `yaml:"should_exist"`
	}
	storage struct {
		Folders []butaneFolder `yaml:"directories,omitempty"`
		Files   []butaneFile   `yaml:"files,omitempty"`
		Links   []butaneLink   `yaml:"links,omitempty"`
	}
	butaneFile struct {
		Path      string    `yaml:"path"`
		Overwrite bool      `yaml:"overwrite,omitempty"`
		Mode      yaml.Node `yaml:"mode"`
		Contents  contents  `yaml:"contents"`
	}
	butaneFolder struct {
		Path string    `yaml:"path"`
		Mode yaml.Node `yaml:"mode"`
	}
	contents struct {
		Inline       *yaml.Node    `yaml:"inline,omitempty"`
		Source       string        `yaml:"source,omitempty"`
		Verification *verification `yaml:"verification,omitempty"`
	}
	verification struct {
		Hash string `yaml:"hash"`
	}
	butaneLink struct {
		Path      string `yaml:"path"`
		Overwrite bool   `yaml:"overwrite,omitempty"`
		Target    string `yaml:"target"`
	}
	butaneSystemd struct {
		Units []*butaneUnit `yaml:"units,omitempty"`
	}
	butaneUnit struct {
		Name     string       `yaml:"name"`
		Enabled  bool         `yaml:"enabled,omitempty"`
		Mask     bool         `yaml:"mask,omitempty"`
		Contents *yaml.Node   `yaml:"contents,omitempty"`
		Dropins  []butaneUnit `yaml:"dropins,omitempty"`
	}
)

// Butane is the node as a Butane config, for a person to read and to keep; the payload
// with the programs is the first.
func (n *Node) Butane(release string, payloads ...Payload) ([]byte, error) {
	r, err := n.OS.formats(release)
	if err != nil {
		return nil, err
	}
	c := butane{Variant: n.OS.variant, Version: r.butane}
	if len(n.Cmdline) > 0 {
		c.Arguments = &arguments{n.Cmdline}
	}
	for _, f := range n.Files {
		switch {
		case f.Link != "":
			c.Storage.Links = append(c.Storage.Links, butaneLink{f.Path, true, f.Link})
		case !c.Systemd.takes(f):
			c.Storage.Files = append(c.Storage.Files, butaneFile{f.Path, true, octal(f.Mode), contents{Inline: text(f.Text)}})
		}
	}
	for _, p := range payloads {
		c.Storage.Files = append(c.Storage.Files, butaneFile{p.file(), true, octal(0o644), contents{Source: p.URL, Verification: &verification{"sha256-" + p.SHA256}}})
		if p.RootHash != "" {
			c.Storage.Files = append(c.Storage.Files, butaneFile{p.hashFile(), true, octal(0o644), contents{Inline: text(p.RootHash + "\n")}})
		}
	}
	if !n.Join.None() {
		c.Storage.Folders = []butaneFolder{{path.Dir(config.Credstore), octal(0o700)}}
		from := contents{Source: n.Join.URL}
		if from.Source == "" {
			from.Inline = text(n.Join.Inline.Reveal())
		}
		c.Storage.Files = append(c.Storage.Files, butaneFile{config.Credstore, true, octal(0o600), from})
	}
	for _, u := range n.units() {
		c.Systemd.unit(u.Name).Enabled = true
	}
	for _, name := range n.Mask {
		c.Systemd.unit(name).Mask = true
	}
	start := c.Systemd.unit(payloadUnit)
	start.Enabled, start.Contents = true, text(n.starter())
	slices.SortFunc(c.Systemd.Units, func(a, b *butaneUnit) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	fmt.Fprintf(&out, "# A Kubernetes %s for %s: Ignition %s. Programs and their units come by %s.raw.\n", n.Role, n.OS.Doc, r.ignition, payloads[0].Name)
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	_, err = translated(out.Bytes()) // what Butane does not take helps nobody
	return out.Bytes(), err
}

// text is a file's content as a person would want to read it, where YAML can say it so:
// the library writes no block that begins with a tab.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	if out, err := yaml.Marshal([]*yaml.Node{n}); err != nil || !says(out, s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// says is whether a list of one text is that text.
func says(list []byte, want string) bool {
	var got []string
	return yaml.Unmarshal(list, &got) == nil && len(got) == 1 && got[0] == want
}

func octal(mode uint32) yaml.Node {
	return yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprintf("%#o", mode)}
}

// unit finds or makes the entry of a unit.
func (s *butaneSystemd) unit(name string) *butaneUnit {
	i := slices.IndexFunc(s.Units, func(u *butaneUnit) bool { return u.Name == name })
	if i < 0 {
		s.Units = append(s.Units, &butaneUnit{Name: name})
		i = len(s.Units) - 1
	}
	return s.Units[i]
}

// takes puts unit files and drop-ins of units where Butane has a place for them. A
// drop-in for many units by a prefix ("imgbuild-.service.d") is none of a unit.
func (s *butaneSystemd) takes(f component.File) bool {
	name, ok := strings.CutPrefix(f.Path, "/etc/systemd/system/")
	if !ok || f.Mode != 0o644 || f.Text == "" { // an empty unit masks one of the system, and Butane drops it
		return false
	}
	unit, dropin, isDropin := strings.Cut(name, ".d/")
	switch {
	case !isDropin && !strings.Contains(name, "/"):
		s.unit(name).Contents = text(f.Text)
	case isDropin && !strings.Contains(unit, "-."):
		u := s.unit(unit)
		u.Dropins = append(u.Dropins, butaneUnit{Name: path.Base(dropin), Contents: text(f.Text)})
	default:
		return false
	}
	return true
}

// Ignition is the node as an Ignition config, translated by Butane and validated by
// Ignition's own code.
func (n *Node) Ignition(release string, payloads ...Payload) ([]byte, error) {
	from, err := n.Butane(release, payloads...)
	if err != nil {
		return nil, err
	}
	return translated(from)
}

func translated(text []byte) ([]byte, error) {
	out, report, err := translate.TranslateBytes(text, common.TranslateBytesOptions{Raw: true})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("translating to Ignition: %w", err), errors.New(report.String()))
	}
	if len(report.Entries) > 0 {
		return nil, fmt.Errorf("translating to Ignition: %s", report.String())
	}
	if _, report, err = ignition.Parse(out); err != nil || len(report.Entries) > 0 {
		return nil, fmt.Errorf("the Ignition config is not valid: %w %s", err, report.String())
	}
	return append(out, '\n'), nil
}
