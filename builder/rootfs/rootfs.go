// Package rootfs makes a node's root file system as a tree in memory: the base's
// layers, sealed for a read-only life, and on top what the plan says. Nothing is
// unpacked on the host. It does not use the network.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Parts gives the content of executables and other large files by name.
type Parts interface {
	Part(name string) (tree.Content, error)
}

// Layers reads the base's uncompressed layer archives, lowest first.
func Layers(files []string) (*tree.Tree, error) {
	t := tree.New()
	for _, file := range files {
		if err := t.ApplyTar(file); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Apply puts what the plan says on a sealed tree.
func Apply(t *tree.Tree, p *plan.Plan, parts Parts) error {
	if err := addUsers(t, p.Users); err != nil {
		return err
	}
	for _, f := range p.Files {
		if err := put(t, f, parts); err != nil {
			return fmt.Errorf("placing %s: %w", f.Path, err)
		}
	}
	for _, u := range p.Units.Enable {
		if err := enable(t, u); err != nil {
			return err
		}
	}
	for _, name := range p.Units.Mask {
		t.Remove("etc/systemd/system/" + name)
		if err := t.Put("etc/systemd/system/"+name, link("/dev/null")); err != nil {
			return err
		}
	}
	return identify(t, p)
}

func put(t *tree.Tree, f component.File, parts Parts) error {
	where, err := inside(t, f.Path)
	if err != nil {
		return err
	}
	switch {
	case f.Link != "":
		return t.Put(where, link(f.Link))
	case f.Dir:
		if n, ok := t.Get(where); ok && n.Mode.IsDir() {
			n.Mode = fs.ModeDir | mode(f.Mode)
			return nil
		}
		return t.Put(where, tree.Node{Mode: fs.ModeDir | mode(f.Mode)})
	}
	if n, ok := t.Get(where); ok && n.Mode.IsDir() {
		return errors.New("the base has a directory there")
	}
	content := tree.Content(tree.Bytes(f.Text))
	if f.Part != "" {
		if content, err = parts.Part(f.Part); err != nil {
			return err
		}
	}
	return t.Put(where, tree.Node{Mode: mode(f.Mode), Content: content})
}

// mode turns the permission bits of stat(2) into those of io/fs.
func mode(unix uint32) fs.FileMode {
	m := fs.FileMode(unix) & fs.ModePerm
	for bit, flag := range special {
		if unix&bit != 0 {
			m |= flag
		}
	}
	return m
}

// inside follows links in the folders above p, so that /sbin/x lands in /usr/sbin.
func inside(t *tree.Tree, p string) (string, error) {
	dir, base := path.Split(path.Clean(p))
	real, _, err := t.Resolve(dir)
	if err != nil {
		return tree.Clean(p) // the folder is not there yet
	}
	return path.Join(real, base), nil
}

func link(target string) tree.Node { return tree.Node{Mode: fs.ModeSymlink | 0o777, Link: target} }

// enable makes the link that `systemctl enable` would make, in the image's /etc,
// so that `systemctl is-enabled` (and kubeadm's preflight) sees it.
func enable(t *tree.Tree, u component.Unit) error {
	file := u.Name
	if at, rest, ok := strings.Cut(u.Name, "@"); ok && !strings.HasPrefix(rest, ".") {
		file = at + "@" + path.Ext(rest)
	}
	target := "usr/lib/systemd/system/" + file
	if _, ok := t.Get(target); !ok {
		target = "etc/systemd/system/" + file
		if _, ok := t.Get(target); !ok {
			return fault.New(fault.Spec, "units: %s is to start at boot, and nothing brings it; have its package in base.packages, or give it content", u.Name)
		}
	}
	return t.Put("etc/systemd/system/"+u.By+".wants/"+u.Name, link("/"+target))
}

// identify adds the image's name to os-release(5), which the boot menu and
// systemd-sysupdate read.
func identify(t *tree.Tree, p *plan.Plan) error {
	const file = "usr/lib/os-release"
	old, err := t.ReadFile(file)
	if err != nil {
		return err
	}
	text := strings.TrimRight(string(old), "\n") + fmt.Sprintf("\nIMAGE_ID=imgbuild-%s\nIMAGE_VERSION=%s\n", p.Role, Version(p))
	return t.Put(file, tree.Node{Mode: 0o644, Content: tree.Bytes(text)})
}

// Version is the image's version: Kubernetes' and the start of the plan's id.
func Version(p *plan.Plan) string { return p.Spec.Kubernetes.Version + "-" + p.ID[:12] }
