// Package plan decides, as pure data, what an image will be: its inputs, the
// files and units of the node tree, the kernel command line, the disk and the
// outputs. A plan can be read, compared and hashed; its hash is the image's id.
// It does no I/O and knows no time.
package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// Plan is everything that a build does, decided.
type Plan struct {
	ID         string              `json:"id"` // sha256, in hex, of all that follows
	Role       string              `json:"role"`
	Arch       string              `json:"arch"`
	Spec       *spec.Node          `json:"spec"`
	Inputs     []lock.Pin          `json:"inputs"`
	Tools      map[string]string   `json:"tools"` // imgbuild's own executables on the node: name → sha256
	Components []string            `json:"components"`
	Files      []component.File    `json:"files"` // sorted by path
	Units      Units               `json:"units"`
	Users      []component.User    `json:"users,omitempty"`
	Ports      []component.Port    `json:"ports"`
	Images     []string            `json:"images"`            // on board, name:tag
	LeftOut    []component.LeftOut `json:"leftOut,omitempty"` // of what the base brings
	Cmdline    []string            `json:"cmdline"`           // without the root hash, which the root decides
	Disk       Disk                `json:"disk"`
	Outputs    []Output            `json:"outputs"`
	Checks     []component.Check   `json:"checks"`
}

// Units is what systemd starts and never starts.
type Units struct {
	Enable []component.Unit `json:"enable"`
	Mask   []string         `json:"mask"`
}

// Disk is the layout of the image; sizes are in bytes. The root and verity
// partitions take what their content needs, rounded up to MiB.
type Disk struct {
	ESPSize  int64  `json:"espSize"`
	RootName string `json:"rootName"` // GPT names
	TreeName string `json:"treeName"`
	BIOS     bool   `json:"bios,omitempty"` // it boots by BIOS, too
}

// Output is one file that the build writes.
type Output struct {
	Format   string `json:"format"`
	File     string `json:"file"`
	Compress bool   `json:"compress,omitempty"`
}

// espSize leaves room for the UKIs of two slots and one being written, each with
// three times today's kernel and initrd. More would be zeros to hash for each image.
const espSize = 128 << 20

// Ask collects what all components of the node ask for: the base with its
// packages first, then parts and images.
func Ask(n *spec.Node) []lock.Request {
	packages := slices.Clone(n.Base.Packages)
	def, _ := images.Find(n.Base.Name) // none, where it is an OCI image
	var rest []lock.Request
	for _, c := range component.All() {
		if c.Request == nil {
			continue
		}
		w := c.Request(n)
		for _, name := range w.Packages {
			packages = append(packages, def.Package(name))
		}
		rest = append(rest, w.Requests...)
	}
	slices.Sort(packages)
	base := lock.Request{Kind: lock.KindBase, Name: n.Base.Name, Source: "debian", Args: slices.Compact(packages)}
	base.Args = append(archives(n.Base), base.Args...)
	if n.Base.OCI != "" {
		base = lock.Request{Kind: lock.KindBase, Name: n.Base.OCI, Source: "oci"}
	}
	return append([]lock.Request{base}, rest...)
}

// archives says where the packages come from, where the spec does.
func archives(b spec.Base) (args []string) {
	if b.Mirror != "" {
		args = append(args, "mirror="+b.Mirror)
	}
	if b.Keyring != "" {
		args = append(args, "keyring="+b.Keyring)
	}
	for _, r := range b.Repositories {
		components := strings.Join(r.Components, " ")
		args = append(args, fmt.Sprintf("repository=deb [signed-by=%s] %s %s %s", r.Keyring, r.URL, r.Suite, cmp.Or(components, "main")))
	}
	return args
}

// Make decides. Tools are the digests of imgbuild's own executables that go on the node.
func Make(n *spec.Node, pins []lock.Pin, tools map[string]string) (*Plan, error) {
	p := &Plan{Role: n.Role, Arch: n.Arch, Spec: n, Inputs: pins, Tools: tools, LeftOut: component.LeftOuts(n),
		Disk: Disk{ESPSize: espSize, RootName: "imgbuild-root", TreeName: "imgbuild-verity", BIOS: n.Disk.BIOS}}
	facts := factsOf(pins)
	p.Images = facts.Images
	var added []component.Addition
	for _, c := range component.All() {
		p.Components = append(p.Components, c.Name)
		if c.Add == nil {
			continue
		}
		a, err := c.Add(n, facts)
		if err != nil {
			return nil, fault.New(fault.Spec, "%s: %w", c.Name, err)
		}
		added = append(added, a)
	}
	if err := p.merge(n, added); err != nil {
		return nil, err
	}
	p.ID = p.hash()
	for _, f := range n.Output.Formats {
		p.Outputs = append(p.Outputs, Output{Format: f, File: p.fileOf(f), Compress: n.Output.Compress && (f == "qcow2" || f == "cloud-init")})
	}
	return p, p.addFacts(n, facts)
}

// Name is what the outputs are called, without an ending.
func (p *Plan) Name() string { return cmp.Or(p.Spec.Output.Name, p.Role) }

// Payload is what the system extension with the Kubernetes programs is called. It is
// the same for both roles.
func (p *Plan) Payload() string {
	return "kubernetes-" + p.Spec.Kubernetes.Version + "-" + p.Arch
}

// ImagePayload is what the system extension with the role's container images is called.
func (p *Plan) ImagePayload() string {
	return "kubernetes-images-" + p.Role + "-" + p.Spec.Kubernetes.Version + "-" + p.Arch
}

// fileOf is the file name of an output; a system extension must be called as it says itself.
func (p *Plan) fileOf(format string) string {
	switch format {
	case "sysext":
		return p.Payload() + ".raw"
	case "sysext-tar":
		return p.Payload() + ".tar"
	case "sysext-images":
		return p.ImagePayload() + ".raw"
	}
	return p.Name() + "." + cmp.Or(endings[format], format)
}

// endings are those of formats whose files are not called after them.
var endings = map[string]string{"ignition": "ign", "butane": "bu", "cloud-init": "cloud-config", "nocloud": "cidata.iso", "nocloud-fat": "cidata.img",
	"containerdisk": "containerdisk.tar", "gce": "gce.tar.gz", "netboot": "netboot.efi"}

// merge joins what the components add. Two components that put different
// things at one path are a mistake of the builder, named.
func (p *Plan) merge(n *spec.Node, added []component.Addition) error {
	for _, a := range added {
		p.Files = append(p.Files, a.Files...)
		p.Units.Enable = append(p.Units.Enable, a.Enable...)
		p.Units.Mask = append(p.Units.Mask, a.Mask...)
		p.Ports = append(p.Ports, a.Ports...)
		p.Cmdline = append(p.Cmdline, a.Cmdline...)
		p.Checks = append(p.Checks, a.Checks...)
		p.Users = append(p.Users, a.Users...)
	}
	p.Cmdline = append(p.Cmdline, n.Boot.Cmdline...) // the kernel takes the last of two: the user's
	rendered, err := component.Render(n, added)
	if err != nil {
		return err
	}
	p.Files = append(p.Files, rendered...)
	slices.SortStableFunc(p.Files, func(a, b component.File) int { return strings.Compare(a.Path, b.Path) })
	for i := 1; i < len(p.Files); i++ {
		if a, b := p.Files[i-1], p.Files[i]; a.Path == b.Path && a != b {
			return fault.New(fault.Spec, "%s: two components, or a component and the spec's files, put different things there; what imgbuild has there is changed by a file of another name beside it (a drop-in), or not at all", a.Path)
		}
	}
	p.Files = slices.Compact(p.Files)
	slices.SortFunc(p.Units.Enable, func(a, b component.Unit) int { return strings.Compare(a.By+a.Name, b.By+b.Name) })
	slices.Sort(p.Units.Mask)
	p.Units.Enable, p.Units.Mask = slices.Compact(p.Units.Enable), slices.Compact(p.Units.Mask)
	return nil
}

// hash is the identity of what a node will be. What the outputs are called and
// where the user's folders lie does not make another node.
func (p *Plan) hash() string {
	said := *p.Spec
	said.Output, said.Host, said.Kubernetes.Dir, said.Containerd.Dir, said.Kubernetes.Release.Roots = spec.Output{}, spec.Host{}, "", "", ""
	said.CNI.Manifest.File = "" // its digest stays
	same := *p
	same.Spec = &said
	out, _ := json.Marshal(same) // plain data cannot fail; ID and outputs are still empty
	return fmt.Sprintf("%x", sha256.Sum256(out))
}

// JSON is the plan as stable, indented text.
func (p *Plan) JSON() []byte {
	out, _ := json.MarshalIndent(p, "", " ")
	return append(out, '\n')
}

func factsOf(pins []lock.Pin) component.Facts {
	f := component.Facts{Pins: pins}
	for _, p := range pins {
		if p.Kind != lock.KindImage {
			continue
		}
		f.Images = append(f.Images, p.Name)
		if strings.Contains(p.Name, "/pause:") {
			f.Pause = p.Name
		}
	}
	slices.Sort(f.Images)
	return f
}

// addFacts puts the image's own description, node.json, on the node, for the
// first-boot agent. It carries the plan's id and so comes last.
func (p *Plan) addFacts(n *spec.Node, f component.Facts) error {
	file, err := component.NodeFacts(n, f, p.ID)
	if err != nil {
		return err
	}
	p.Files = append(p.Files, file)
	slices.SortFunc(p.Files, func(a, b component.File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}
