package spec

import (
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/arch"
)

// resolve fills in what depends on other values: versions from the table, the
// kubelet's version, the output's name; and it takes back what a profile said
// where the user's choice makes it meaningless. What is not valid stays as it is,
// for Validate.
func (n *Node) resolve() {
	k := &n.Kubernetes
	n.fill("kubernetes.version", &k.Version, kubernetesMinors[0].Newest)
	k.Version = fullVersion(k.Version)
	n.fill("kubernetes.kubeletVersion", &k.KubeletVersion, k.Version)
	k.KubeletVersion = fullVersion(k.KubeletVersion)
	if n.Base.OCI != "" {
		n.clear("base.name", &n.Base.Name)
		n.clear("base.builder", &n.Base.Builder)
		n.clear("base.kernel", &n.Base.Kernel)
		n.clear("base.mirror", &n.Base.Mirror)
		n.clear("base.keyring", &n.Base.Keyring)
	} else {
		n.fill("base.builder", &n.Base.Builder, baseBuilders[0])
	}
	if names, err := arch.Of(n.Arch); err == nil && n.Boot.Console == nil {
		n.Boot.Console, n.origins["boot.console"] = slices.Clone(names.Consoles), Pos{File: fromDefault}
	}
	c := &n.Containerd
	if c.Source == "base" {
		n.fill("containerd.version", &c.Version, baseContainerd(n.Base.Name))
	}
	if c.Source != "base" || n.Base.Name != "" {
		n.fill("containerd.version", &c.Version, defaultContainerd)
	}
	n.resolveNetwork()
	n.fill("output.name", &n.Output.Name, n.Role+arch.Suffix(n.Arch))
	for i := range n.Files {
		n.fill(sprintf("files[%d].mode", i), &n.Files[i].Mode, "0644")
	}
	for i := range n.Users {
		n.fill(sprintf("users[%d].shell", i), &n.Users[i].Shell, "/bin/bash")
	}
}

// resolveNetwork fills in how the pod network travels, and flannel's version.
func (n *Node) resolveNetwork() {
	c := &n.CNI
	known := Backends(c.Name)
	if !slices.Contains(known, c.Backend) {
		n.clear("cni.backend", &c.Backend)
	}
	if len(known) > 0 {
		n.fill("cni.backend", &c.Backend, known[0])
	}
	if c.Name == "flannel" {
		n.fill("cni.version", &c.Version, defaultFlannel)
		return
	}
	n.clear("cni.version", &c.Version)
}

// fill sets a value that nobody wrote.
func (n *Node) fill(path string, target *string, value string) {
	if *target == "" && value != "" {
		*target = value
		n.origins[path] = Pos{File: fromDefault}
	}
}

// clear takes a profile's value back.
func (n *Node) clear(path string, target *string) {
	if !n.origins.byUser(path) {
		*target = ""
		delete(n.origins, path)
	}
}

// fullVersion returns the newest known patch for a known minor alone, and anything
// else as it is.
func fullVersion(v string) string {
	if strings.Count(v, ".") == 1 {
		if patch := newestPatch(v); patch != "" {
			return patch
		}
	}
	return v
}
