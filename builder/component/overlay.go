package component

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/overlays"
)

// modes are the overlay files that are not 0644.
var modes = map[string]uint32{
	"/usr/lib/imgbuild/ignition/setfiles":                       0o755,
	"/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": 0o600, // CIS 4.1.1
	"/usr/lib/systemd/system/kubelet.service":                   0o600, // CIS 4.1.1, too: its benchmark looks here first
	"/etc/ssh/sshd_config.d/10-imgbuild.conf":                   0o600,
}

// view is what templates see.
type view struct {
	Node  *spec.Node
	Facts Facts

	Ports        []Port
	Containerd1  bool
	VarSize      string
	FlannelImage string
	Plugins      []string
	Links        []string // that networkd leaves alone
	Tunnels      []string // of the pod network
	Pods         []string // links that pods come in by
}

// overlay returns the files of a component's overlay, templates rendered. A
// template that renders to nothing brings no file.
func overlay(name string, v view) ([]File, error) {
	var out []File
	err := fs.WalkDir(overlays.Files, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := overlays.Files.ReadFile(p)
		if err != nil {
			return err
		}
		text, dst := string(raw), "/"+strings.TrimPrefix(p, name+"/")
		if plain, ok := strings.CutSuffix(dst, ".tmpl"); ok {
			dst = plain
			if text, err = render(p, text, v); err != nil || strings.TrimSpace(text) == "" {
				return err
			}
		}
		mode := uint32(0o644)
		if m, ok := modes[dst]; ok {
			mode = m
		}
		out = append(out, File{Path: path.Clean(dst), Mode: mode, Text: text})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", name, err)
	}
	return out, nil
}

func render(name, text string, v view) (string, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{"join": strings.Join}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", err
	}
	return b.String(), nil
}

// fromOverlay is the Add of a component that is its overlay and fixed additions.
func fromOverlay(name string, more Addition) func(*spec.Node, Facts) (Addition, error) {
	return func(n *spec.Node, f Facts) (Addition, error) {
		files, err := overlay(name, view{Node: n, Facts: f})
		if err != nil {
			return Addition{}, err
		}
		a := more
		a.Files = append(slices.Clone(more.Files), files...)
		return a, nil
	}
}

// wants is the Request of a component that always asks for the same packages.
func wants(packages ...string) func(*spec.Node) Wants {
	return func(*spec.Node) Wants { return Wants{Packages: packages} }
}
