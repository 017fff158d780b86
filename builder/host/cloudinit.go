package host

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// fetcher is a program that every Debian has, and that checks a digest.
const fetcher = "/usr/lib/apt/apt-helper"

// The schema of cloud-init's user data as far as it is used (its modules write_files,
// package_update_upgrade_install and runcmd).
type (
	cloudConfig struct {
		KeepName   bool        `yaml:"preserve_hostname"` // a member's name must not change
		WriteFiles []cloudFile `yaml:"write_files"`
		Update     bool        `yaml:"package_update"`
		Packages   []string    `yaml:"packages"`
		Run        []yaml.Node `yaml:"runcmd"`
	}
	cloudFile struct {
		Path        string     `yaml:"path"`
		Permissions yaml.Node  `yaml:"permissions"`
		Content     *yaml.Node `yaml:"content"`
	}
)

// CloudInit is the node as user data of cloud-init, for a Debian host.
func (n *Node) CloudInit(payloads ...Payload) ([]byte, error) {
	if n.OS.Name != "debian" {
		return nil, fmt.Errorf("%s reads no cloud-config: use format ignition", n.OS.Name)
	}
	c := cloudConfig{KeepName: true, Update: true, Packages: n.Packages}
	for _, f := range n.Files {
		if f.Link != "" {
			return nil, fmt.Errorf("%s: cloud-init writes no links", f.Path)
		}
		c.WriteFiles = append(c.WriteFiles, cloudFile{f.Path, quoted(fmt.Sprintf("%04o", f.Mode)), text(f.Text)})
	}
	c.WriteFiles = append(c.WriteFiles, cloudFile{"/etc/systemd/system/" + payloadUnit, quoted("0644"), text(n.starter())})
	for _, p := range payloads {
		if p.RootHash != "" {
			c.WriteFiles = append(c.WriteFiles, cloudFile{p.hashFile(), quoted("0644"), text(p.RootHash + "\n")})
		}
	}
	if !n.Join.Inline.Empty() {
		c.WriteFiles = append(c.WriteFiles, cloudFile{config.Credstore, quoted("0600"), text(n.Join.Inline.Reveal())})
	}
	c.Run = n.commands(payloads)
	var out bytes.Buffer
	fmt.Fprintf(&out, "#cloud-config\n# A Kubernetes %s for %s. Programs and their units come by %s.raw.\n", n.Role, n.OS.Doc, payloads[0].Name)
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(c); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// commands are what Ignition needs no word for: what was written comes into force, in
// the order in which a boot would have it.
func (n *Node) commands(payloads []Payload) []yaml.Node {
	out := []yaml.Node{{Kind: yaml.ScalarNode, Value: "set -e"}, words("systemctl", "daemon-reload")}
	if len(n.Mask) > 0 {
		out = append(out, words(append([]string{"systemctl", "mask", "--now"}, n.Mask...)...))
	}
	var names []string
	for _, u := range n.units() {
		if u.Name != extensions {
			names = append(names, u.Name)
		}
	}
	slices.Sort(names)
	out = append(out,
		words("systemctl", "restart", "systemd-modules-load.service", "systemd-sysctl.service"),
		words(append([]string{"systemctl", "enable", "--now"}, names...)...),
		words("mkdir", "-p", "/etc/extensions"))
	for _, p := range payloads {
		out = append(out, fetch(p.URL, p.file(), "SHA256:"+p.SHA256))
	}
	if n.Join.URL != "" {
		out = append(out, words("install", "-d", "-m", "0700", path.Dir(config.Credstore)), fetch(n.Join.URL, config.Credstore))
	}
	return append(out,
		words("systemctl", "enable", extensions),
		words("systemctl", "restart", extensions),
		words("systemctl", "enable", "--now", payloadUnit),
	)
}

func fetch(url, file string, digest ...string) yaml.Node {
	return words(append([]string{fetcher, "-o", "Acquire::Retries=5", "-o", "APT::Sandbox::User=root", "download-file", url, file}, digest...)...)
}

// words is a command on one line.
func words(all ...string) yaml.Node {
	n := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, w := range all {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: w})
	}
	return n
}

func quoted(text string) yaml.Node {
	return yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.SingleQuotedStyle}
}

// present are packages that a Debian image for clouds has, that only a disk of ours
// needs, or whose programs come with the payload.
var present = []string{"systemd", "udev", "dbus", "bash", "coreutils", "util-linux", "mount", "procps", "ca-certificates", "libnss-", "libpam-", "kmod",
	"linux-image-", "openssh-server", "e2fsprogs", "iproute2", "runc", "containernetworking-plugins", "containerd"}

// packagesOf are those that the host's package manager has to install.
func packagesOf(asked []string) []string {
	return slices.DeleteFunc(slices.Clone(asked), func(name string) bool {
		return strings.Contains(name, "=") || slices.ContainsFunc(present, func(p string) bool { return strings.HasPrefix(name, p) })
	})
}
