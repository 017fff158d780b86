// Package contents says what takes the space in an image, by package, program and
// file, and what two images differ in. It reads images as verify does, and nothing else.
package contents

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/verify"
)

// Where a sealed root has dpkg's database, and the layers of the container images.
const dpkgDir, imagesDir = "usr/lib/sysimage/dpkg", "usr/lib/imgbuild/containerd"

// The kinds of Part.
const (
	Package = "package" // of the base's package manager
	Program = "program" // an executable beside the packages
	Images  = "images"  // the container images on board
	Own     = "imgbuild"
)

// Part is a thing that an image is made of.
type Part struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"` // of its regular files
}

// Entry is one name in the root.
type Entry struct {
	Path  string
	Mode  fs.FileMode
	Size  int64 // bytes of a regular file
	Link  string
	Owner *Part
}

// Contents is what is in an image.
type Contents struct {
	Report  *verify.Report
	Parts   []*Part // the largest first
	Entries map[string]Entry
	// Packages that are installed, as dpkg says it, with their versions: one may have no file left.
	Packages map[string]string
	Sysctls  map[string]string
	Ports    []string // rules of the packet filter that let something in
}

// Read reads an image. One that is not sound is an error.
func Read(ctx context.Context, image string) (*Contents, error) {
	var c *Contents
	err := with(ctx, image, func(got *Contents, _ fs.FS) error {
		c = got
		return nil
	})
	return c, err
}

// with reads an image and hands it, and its files, to use. The report comes after that.
func with(ctx context.Context, image string, use func(*Contents, fs.FS) error) error {
	c := &Contents{Entries: map[string]Entry{}}
	report, err := verify.Root(ctx, image, func(root fs.FS) error {
		if err := c.read(root); err != nil {
			return err
		}
		return use(c, root)
	})
	if err != nil {
		return err
	}
	c.Report = report
	return nil
}

func (c *Contents) read(root fs.FS) (err error) {
	if c.Sysctls, err = verify.Sysctls(root); err != nil {
		return err
	}
	owners, err := c.packages(root)
	if err != nil {
		return err
	}
	own := &Part{Kind: Own, Name: "imgbuild"}
	images := &Part{Kind: Images, Name: "container images"}
	parts := map[*Part]bool{}
	err = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		e, err := entry(root, p, d)
		if err != nil {
			return err
		}
		switch owner := owners[p]; {
		case strings.HasPrefix(p, imagesDir+"/"):
			e.Owner = images
		case owner != nil:
			e.Owner = owner
		case e.Mode.IsRegular() && e.Mode&0o111 != 0 && e.Size > 1<<20:
			e.Owner = &Part{Kind: Program, Name: path.Base(p)}
		default:
			e.Owner = own
		}
		if e.Mode.IsRegular() {
			e.Owner.Files++
			e.Owner.Bytes += e.Size
			parts[e.Owner] = true
		}
		c.Entries[p] = e
		return nil
	})
	for p := range parts {
		c.Parts = append(c.Parts, p)
	}
	sortParts(c.Parts)
	return errors.Join(err, c.readPorts(root))
}

// sortParts puts the largest first.
func sortParts(parts []*Part) {
	slices.SortFunc(parts, func(a, b *Part) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Kind+a.Name, b.Kind+b.Name))
	})
}

func entry(root fs.FS, p string, d fs.DirEntry) (Entry, error) {
	info, err := d.Info()
	if err != nil {
		return Entry{}, fmt.Errorf("reading %s: %w", p, err)
	}
	e := Entry{Path: p, Mode: verify.Mode(info)}
	switch {
	case e.Mode.IsRegular():
		e.Size = info.Size()
	case e.Mode&fs.ModeSymlink != 0:
		if e.Link, err = fs.ReadLink(root, p); err != nil {
			return e, fmt.Errorf("reading %s: %w", p, err)
		}
	}
	return e, nil
}

// packages says which package brought what, by dpkg's own lists.
func (c *Contents) packages(root fs.FS) (map[string]*Part, error) {
	c.Packages = map[string]string{}
	text, err := fs.ReadFile(root, dpkgDir+"/status")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a base without dpkg
	}
	if err != nil {
		return nil, err
	}
	by := map[string]*Part{}
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		p := &Part{Kind: Package}
		for line := range strings.Lines(paragraph) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
			case "Package":
				p.Name = value
			case "Version":
				p.Version = value
			}
		}
		if p.Name != "" {
			by[p.Name], c.Packages[p.Name] = p, p.Version
		}
	}
	lists, err := fs.Glob(root, dpkgDir+"/info/*.list")
	if err != nil {
		return nil, err
	}
	owners := map[string]*Part{}
	for _, list := range lists {
		name, _, _ := strings.Cut(strings.TrimSuffix(path.Base(list), ".list"), ":")
		if by[name] == nil {
			continue
		}
		f, err := root.Open(list)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			owners[merged(strings.TrimPrefix(lines.Text(), "/"))] = by[name]
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return owners, nil
}

// merged is where a path lies with /usr merged.
func merged(p string) string {
	for _, dir := range []string{"bin/", "sbin/", "lib/", "lib64/"} {
		if strings.HasPrefix(p, dir) {
			return "usr/" + p
		}
	}
	return p
}

// readPorts reads the rules of imgbuild's packet filter that name a port.
func (c *Contents) readPorts(root fs.FS) error {
	text, err := fs.ReadFile(root, "etc/imgbuild/firewall.nft")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "dport") && !strings.HasPrefix(line, "#") {
			c.Ports = append(c.Ports, line)
		}
	}
	return err
}
