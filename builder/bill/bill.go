// Package bill says what an image is made of and where that came from: the bill
// of materials as SPDX 2.3 and as CycloneDX 1.6, and the provenance as an in-toto
// statement with SLSA's predicate. It reads the sealed tree and the plan, and
// writes nothing but the bytes it returns, the same ones for the same build.
package bill

import (
	"bytes"
	"cmp"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Kind is what a component is.
type Kind string

// The kinds of component.
const (
	Package   Kind = "package"   // of the base's package manager
	Part      Kind = "part"      // an executable beside the packages
	Module    Kind = "module"    // a Go module that an executable was built from
	Container Kind = "container" // a container image on board
	Own       Kind = "imgbuild"  // imgbuild's own files, and the spec's
)

// Component is one thing that an image is made of.
type Component struct {
	Kind     Kind
	Name     string
	Version  string
	Supplier string   // who packaged it; may be empty
	PURL     string   // package URL
	Digest   string   // "sha256:…" of the input where it has one
	Files    []string // paths in the root, sorted
	Needs    []string // References of what is in it
}

// Reference names a component within one bill.
func (c *Component) Reference() string { return string(c.Kind) + "/" + c.Name + "@" + c.Version }

// File is one regular file of the root.
type File struct {
	Path   string
	Size   int64
	ELF    bool
	SHA1   string // hex; SPDX wants it
	SHA256 string
}

// Bill is what an image is made of.
type Bill struct {
	Name, Version, ID string // of the image: the plan's name, rootfs' version, the plan's id
	Components        []*Component
	Files             map[string]*File
	Unowned           []string // files that belong to no component, sorted
}

// Image is what a bill is made of.
type Image struct {
	Plan       *plan.Plan
	Version    string            // rootfs'
	Root       *tree.Tree        // sealed
	Containers map[string]string // which container image brought what lies below a folder
	Payload    *tree.Tree        // where the root is not delivered, but this part of it; else nil
}

// delivered is the tree whose files are listed.
func (i Image) delivered() *tree.Tree {
	if i.Payload != nil {
		return i.Payload
	}
	return i.Root
}

// Make reads the sealed tree. Sums gives the digests of the files.
func Make(ctx context.Context, i Image, sums Sums) (*Bill, error) {
	p := i.Plan
	b := &Bill{Name: p.Name(), Version: i.Version, ID: p.ID, Files: map[string]*File{}}
	if err := b.readFiles(ctx, i.delivered(), sums); err != nil {
		return nil, fmt.Errorf("listing the image's files: %w", err)
	}
	o := &owners{tree: i.Root, by: map[string]*Component{}}
	parts, err := b.addParts(p, i, o)
	if err != nil {
		return nil, fmt.Errorf("listing the image's parts: %w", err)
	}
	b.addOwn(p, o)
	packages, err := readPackages(i.Root, p.Arch)
	if err != nil {
		return nil, fmt.Errorf("listing the image's packages: %w", err)
	}
	o.claimPackages(packages)
	for _, file := range b.sortedFiles() {
		c := o.of(file)
		if c == nil {
			b.Unowned = append(b.Unowned, file)
			continue
		}
		c.Files = append(c.Files, file)
	}
	if i.Payload != nil { // of what brings nothing to it, it has nothing
		packages = slices.DeleteFunc(packages, func(c *Component) bool { return len(c.Files) == 0 })
		parts = slices.DeleteFunc(parts, func(c *Component) bool { return c.Kind == Container && len(c.Files) == 0 })
	}
	b.Components = append(append(b.Components, packages...), parts...)
	slices.SortFunc(b.Components, func(x, y *Component) int { return strings.Compare(x.Reference(), y.Reference()) })
	return b, nil
}

func (b *Bill) sortedFiles() []string {
	var out []string
	for p := range b.Files {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

func (b *Bill) readFiles(ctx context.Context, root *tree.Tree, sums Sums) error {
	nodes := map[string]tree.Content{}
	if err := root.Walk(func(p string, n *tree.Node) error {
		if n.Mode.IsRegular() && n.Content != nil {
			nodes[p] = n.Content
		}
		return nil
	}); err != nil {
		return err
	}
	all, err := sums.Of(ctx, nodes)
	if err != nil {
		return err
	}
	for p, s := range all {
		b.Files[p] = &File{Path: p, Size: nodes[p].Size(), ELF: s.ELF, SHA1: s.SHA1, SHA256: s.SHA256}
	}
	return nil
}

// inventory collects components, each once.
type inventory struct {
	all []*Component
	by  map[string]*Component // by reference
}

func (v *inventory) add(c *Component) *Component {
	if have := v.by[c.Reference()]; have != nil {
		return have
	}
	v.by[c.Reference()] = c
	v.all = append(v.all, c)
	return c
}

// needs adds the Go modules that an executable says it is built from.
func (v *inventory) needs(c *Component, executable tree.Content) {
	for _, m := range modules(executable) {
		c.Needs = append(c.Needs, v.add(m).Reference())
	}
	slices.Sort(c.Needs)
	c.Needs = slices.Compact(c.Needs)
}

// addParts lists the executables that lie beside the packages, the container images,
// and the Go modules that both are built from.
func (b *Bill) addParts(p *plan.Plan, i Image, o *owners) ([]*Component, error) {
	v := &inventory{by: map[string]*Component{}}
	pins, containers := map[string]lock.Pin{}, map[string]*Component{}
	for _, pin := range p.Inputs {
		switch pin.Kind {
		case lock.KindPart:
			pins[pin.Name] = pin
		case lock.KindImage:
			containers[pin.Name] = v.add(&Component{Kind: Container, Name: strings.TrimSuffix(pin.Name, ":"+pin.Version), Version: pin.Version, Digest: sha256Of(pin), PURL: purl(pin)})
		}
	}
	if err := i.delivered().Walk(func(file string, n *tree.Node) error {
		if c := containers[imageOf(i.Containers, file)]; c != nil && n.Mode.IsRegular() {
			o.by[file] = c
			v.needs(c, n.Content)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, f := range p.Files {
		if f.Part == "" {
			continue
		}
		where, n, err := i.Root.Resolve(f.Path)
		if err != nil {
			return nil, err
		}
		if b.Files[where] == nil {
			continue
		}
		c := &Component{Kind: Own, Name: f.Part, Version: b.Version, PURL: "pkg:generic/" + f.Part + "@" + b.Version}
		if pin, ok := pins[f.Part]; ok {
			c = &Component{Kind: Part, Name: pin.Name, Version: pin.Version, Digest: sha256Of(pin), PURL: purl(pin)}
		}
		c = v.add(c)
		o.by[where] = c
		v.needs(c, n.Content)
	}
	return v.all, nil
}

// imageOf is the container image that brought a file: its folder, or one above, is
// that of a layer.
func imageOf(images map[string]string, file string) string {
	for dir := path.Dir(file); dir != "."; dir = path.Dir(dir) {
		if image, ok := images[dir]; ok {
			return image
		}
	}
	return ""
}

// addOwn gives imgbuild what its plan put there and is nobody's part.
func (b *Bill) addOwn(p *plan.Plan, o *owners) {
	own := &Component{Kind: Own, Name: "node", Version: b.Version, PURL: "pkg:generic/imgbuild-node@" + b.Version}
	for _, f := range p.Files {
		if f.Part != "" || f.Dir || f.Link != "" {
			continue
		}
		if where, _, err := o.tree.Resolve(f.Path); err == nil {
			o.by[where] = own
		}
	}
	for _, f := range sealed {
		o.by[f] = own
	}
	for file := range b.Files {
		if (strings.HasPrefix(file, imagesDir) || strings.HasPrefix(file, "usr/lib/extension-release.d/")) && o.by[file] == nil { // what containerd is told of the images, and a host of the payload
			o.by[file] = own
		}
	}
	b.Components = append(b.Components, own)
}

// imagesDir is where the container images lie.
var imagesDir = strings.TrimPrefix(config.ImagesDir, "/") + "/"

// sealed is what sealing writes.
var sealed = []string{"etc/machine-id", "etc/fstab", "usr/lib/tmpfiles.d/imgbuild-var.conf", "usr/lib/os-release"}

// modules are the Go modules that an executable carries in it, its own first.
func modules(c tree.Content) []*Component {
	r, err := c.Open()
	if err != nil {
		return nil
	}
	defer r.Close() //nolint:errcheck // read only
	at, ok := r.(io.ReaderAt)
	if !ok {
		text, err := io.ReadAll(r)
		if err != nil {
			return nil
		}
		at = bytes.NewReader(text)
	}
	info, err := buildinfo.Read(at)
	if err != nil {
		return nil // not built by Go
	}
	var out []*Component
	for _, d := range info.Deps {
		if d.Replace != nil && d.Replace.Version != "" {
			d = d.Replace
		}
		out = append(out, &Component{Kind: Module, Name: d.Path, Version: d.Version, PURL: "pkg:golang/" + strings.ToLower(d.Path) + "@" + d.Version})
	}
	return append(out, &Component{Kind: Module, Name: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go"), PURL: "pkg:golang/stdlib@" + strings.TrimPrefix(info.GoVersion, "go")})
}

func sha256Of(pin lock.Pin) string {
	if strings.HasPrefix(pin.Digest, "sha256:") {
		return pin.Digest
	}
	return ""
}

// purl is the package URL of a pin.
func purl(pin lock.Pin) string {
	module, version, _ := strings.Cut(pin.URL, "@")
	switch {
	case pin.Source == "gomodule" && version != "":
		return "pkg:golang/" + strings.ToLower(module) + "@" + version + "#" + pin.Name
	case pin.Kind == lock.KindImage:
		name := strings.TrimSuffix(pin.Name, ":"+pin.Version)
		return "pkg:oci/" + path.Base(name) + "@" + cmp.Or(strings.Replace(pin.Digest, ":", "%3A", 1), pin.Version)
	}
	return "pkg:generic/" + pin.Name + "@" + pin.Version
}
