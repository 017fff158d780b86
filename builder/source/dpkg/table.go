package dpkg

import (
	_ "embed"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// Entry says of one maintainer script why it need not run.
type Entry struct {
	Package string   `json:"package"` // a name, or a pattern as path.Match has it
	Script  string   `json:"script"`
	SHA256  []string `json:"sha256"` // of its hand-written part, one for each text that was read
	Why     string   `json:"why"`
	Deeds
}

// Deeds is what stands for a script: it is done to the tree as it says.
// @RELEASE@ is the kernel's release, @ARCH@ the architecture.
type Deeds struct {
	Divert       map[string]string `json:"divert,omitempty"` // from → to, for every other package
	Dirs         []File            `json:"dirs,omitempty"`
	Copies       map[string]string `json:"copies,omitempty"` // to → from
	Files        []File            `json:"files,omitempty"`
	Links        map[string]string `json:"links,omitempty"`        // path → target
	Alternatives []string          `json:"alternatives,omitempty"` // arguments of update-alternatives --install
	Enable       []string          `json:"enable,omitempty"`       // units, as systemctl enable does
	Owners       []File            `json:"owners,omitempty"`       // as dpkg-statoverride --update --add does
	Sysusers     []string          `json:"sysusers,omitempty"`     // files of sysusers.d(5)
	Groups       []string          `json:"groups,omitempty"`       // as addgroup --system makes them
	Users        []User            `json:"users,omitempty"`        // as adduser --system makes them
	Tmpfiles     []string          `json:"tmpfiles,omitempty"`     // files of tmpfiles.d(5)
	Remove       []string          `json:"remove,omitempty"`
	Steps        []string          `json:"steps,omitempty"` // functions of this package, by name

	preset     []string // units, as systemctl preset does
	userPreset []string // units of users' managers, likewise
	nss        []string // of dh_installnss: "hosts/myhostname from libnss-myhostname in position after=files"
}

// File is an entry that is made if it is not there.
type File struct {
	Path  string `json:"path"`
	Mode  string `json:"mode,omitempty"` // octal
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
	Text  string `json:"text,omitempty"`
}

// User is a system account. Its group is nogroup where none is named, and made where it is not there.
type User struct {
	Name    string   `json:"name"`
	Comment string   `json:"comment,omitempty"`
	Home    string   `json:"home,omitempty"`
	Shell   string   `json:"shell,omitempty"`
	Group   string   `json:"group,omitempty"`
	Member  []string `json:"member,omitempty"` // other groups that it is a member of
}

// Table is table.yaml.
type Table struct {
	Scripts  []Entry           `json:"scripts"`
	Triggers map[string]string `json:"triggers"` // name or folder → what stands for it
	Sections map[string]string `json:"sections"` // action of a snippet → what stands for it
}

//go:embed table.yaml
var tableText []byte

var theTable = func() Table {
	var t Table
	if err := yaml.UnmarshalStrict(tableText, &t); err != nil {
		panic(err) // a test reads it first
	}
	return t
}()

// WayOut ends every error of a package that only dpkg itself can lay out.
const WayOut = "`base.builder: mmdebstrap` runs maintainer scripts"

// judge finds for every script of every package what stands for it, in the order of
// the packages. Scripts, sections and triggers that nobody read are findings, all of them at once.
func (t Table) judge(packages []*Package) (deeds []Deeds, err error) {
	var unknown []string
	for _, p := range packages {
		var all Deeds
		for _, name := range scriptNames {
			d, err := t.script(p, name)
			if err != nil {
				unknown = append(unknown, err.Error())
			}
			all.add(d)
		}
		unknown = append(unknown, t.triggers(p)...)
		deeds = append(deeds, all)
	}
	if unknown != nil {
		return nil, fault.New(fault.Spec, "%s; %s", strings.Join(unknown, "; "), WayOut)
	}
	return deeds, nil
}

func (t Table) script(p *Package, name string) (all Deeds, err error) {
	script := text(p.Members[name])
	sections, rest := split(script)
	for _, s := range sections {
		d, ok := s.deeds()
		if !ok {
			return all, fmt.Errorf("package %s %s: its %s has a section of %s that nobody read (sha256 %s)", p.Name, p.Version, name, s.tool, digest(s.text))
		}
		all.add(d)
	}
	hand := p.remainder(rest)
	if hand == "" {
		return all, nil
	}
	sum := digest(hand)
	for _, e := range t.Scripts {
		if match, _ := path.Match(e.Package, p.Name); match && e.Script == name && slices.Contains(e.SHA256, sum) {
			all.add(e.Deeds)
			return all, nil
		}
	}
	return all, fmt.Errorf("package %s %s: its %s (sha256 %s) is not one that was read", p.Name, p.Version, name, sum)
}

// deeds is what a generated section does on a first installation.
func (s section) deeds() (d Deeds, ok bool) {
	words := func() (out []string) {
		for _, a := range s.args {
			out = append(out, strings.Fields(a)...)
		}
		return out
	}
	switch s.does {
	case "enable":
		d.preset = slices.Compact(slices.Sorted(slices.Values(s.args)))
	case "enable-user":
		d.userPreset = slices.Compact(slices.Sorted(slices.Values(s.args)))
	case "sysusers":
		d.Sysusers = words()
	case "tmpfiles":
		d.Tmpfiles = words()
	case "alternatives":
		d.Alternatives = s.args
	case "nss":
		d.nss = s.args
	case "apparmor":
		d.Files = []File{{Path: "/etc/apparmor.d/local/" + s.args[0]}}
	case "":
		return d, false
	}
	return d, true
}

func (d *Deeds) add(o Deeds) {
	d.Divert = merge(d.Divert, o.Divert)
	d.Copies = merge(d.Copies, o.Copies)
	d.Links = merge(d.Links, o.Links)
	d.Dirs = append(d.Dirs, o.Dirs...)
	d.Files = append(d.Files, o.Files...)
	d.Owners = append(d.Owners, o.Owners...)
	d.Alternatives = append(d.Alternatives, o.Alternatives...)
	d.Enable = append(d.Enable, o.Enable...)
	d.Sysusers = append(d.Sysusers, o.Sysusers...)
	d.Tmpfiles = append(d.Tmpfiles, o.Tmpfiles...)
	d.Remove = append(d.Remove, o.Remove...)
	d.Steps = append(d.Steps, o.Steps...)
	d.Groups = append(d.Groups, o.Groups...)
	d.Users = append(d.Users, o.Users...)
	d.preset = append(d.preset, o.preset...)
	d.userPreset = append(d.userPreset, o.userPreset...)
	d.nss = append(d.nss, o.nss...)
}

func merge(a, b map[string]string) map[string]string {
	if len(b) == 0 {
		return a
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}

// trigger is one line of a triggers file (deb-triggers(5)).
type trigger struct {
	interest bool
	noawait  bool
	name     string
}

func (p *Package) triggerLines() (out []trigger) {
	for line := range strings.Lines(text(p.Members["triggers"])) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 2 {
			out = append(out, trigger{strings.HasPrefix(words[0], "interest"), strings.HasSuffix(words[0], "-noawait"), words[1]})
		}
	}
	return out
}

func (t Table) triggers(p *Package) (unknown []string) {
	for _, line := range p.triggerLines() {
		if _, ok := t.Triggers[p.general(line.name)]; !ok {
			unknown = append(unknown, fmt.Sprintf("package %s %s: its trigger %s is not one that was read", p.Name, p.Version, line.name))
		}
	}
	return unknown
}
