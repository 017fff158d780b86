package spec

import (
	"strings"

	version "github.com/hashicorp/go-version"
)

// versions checks each version and how they fit together.
func (c *checker) versions() {
	k := c.n.Kubernetes
	control := c.series("kubernetes.version", k.Version)
	if control != nil && newestPatch(minorOf(control)) == "" {
		c.fail("kubernetes.version", sprintf("Kubernetes %s is not supported", k.Version), "use "+supported())
	}
	control = c.version("kubernetes.version", k.Version)
	kubelet, _ := version.NewVersion(k.KubeletVersion) // nil if it is none
	if !c.follows() {
		kubelet = c.version("kubernetes.kubeletVersion", k.KubeletVersion)
	}
	if control != nil && kubelet != nil {
		if message, hint := kubeletFits(control, kubelet); message != "" {
			c.fail("kubernetes.kubeletVersion", message, hint)
		}
	}
	runtime := c.series("containerd.version", c.n.Containerd.Version)
	if runtime != nil {
		c.containerd(runtime)
	}
	if runtime != nil && kubelet != nil {
		c.runtimeFits(runtime, kubelet)
	}
	c.version("cni.version", c.n.CNI.Version)
}

// follows reports whether the kubelet's version was taken from kubernetes.version, so
// that a finding on that one is enough.
func (c *checker) follows() bool {
	return c.n.Kubernetes.KubeletVersion == c.n.Kubernetes.Version && !c.n.origins.byUser("kubernetes.kubeletVersion")
}

// version parses a full version of three numbers; it returns nil, with a finding
// where there is none yet, for anything else.
func (c *checker) version(path, text string) *version.Version {
	v := c.series(path, text)
	if v != nil && strings.Count(text, ".") != 2 {
		c.fail(path, sprintf("no patch of %s is known", text), "give the version in full, with its patch")
		return nil
	}
	return v
}

// series parses a version of two or three numbers.
func (c *checker) series(path, text string) *version.Version {
	if text == "" || c.bad(path) {
		return nil
	}
	v, err := version.NewVersion(text)
	if err != nil {
		c.fail(path, sprintf("%s is not a version", quote(text)), versionHint)
		return nil
	}
	return v
}

// kubeletFits says what is wrong with a kubelet under a control plane: it may not
// be newer, nor more than kubeletSkew minors older. kubeadm is of the control
// plane's own version. https://kubernetes.io/releases/version-skew-policy/
func kubeletFits(control, kubelet *version.Version) (message, hint string) {
	a, b := control.Segments(), kubelet.Segments()
	switch {
	case kubelet.GreaterThan(control):
		return sprintf("kubelet %s is newer than the control plane %s", kubelet, control), sprintf("use %s or older", control)
	case a[0] != b[0] || a[1]-b[1] > kubeletSkew:
		return sprintf("kubelet %s is more than %d minors older than the control plane %s", kubelet, kubeletSkew, control),
			sprintf("use %d.%d or newer", a[0], a[1]-kubeletSkew)
	}
	return "", ""
}

// containerd checks that the source has the version.
func (c *checker) containerd(runtime *version.Version) {
	name, source := c.n.Base.Name, c.n.Containerd.Source
	own, text := baseContainerd(name), c.n.Containerd.Version
	major := runtime.Segments()[0]
	switch {
	case source == "base" && own != "" && minorOf(runtime) != own:
		c.fail("containerd.version", sprintf("%s has containerd %s, not %s", name, own, text), "remove the version, or the source base")
	case source != "base" && strings.Count(text, ".") != 2:
		c.fail("containerd.version", sprintf("%s is not a full version", quote(text)), "write it as "+defaultContainerd)
	case major != 1 && major != 2:
		c.fail("containerd.version", sprintf("containerd %s is not supported", text), "use "+defaultContainerd)
	case source == "gomodule" && major == 1:
		c.fail("containerd.version", sprintf("containerd %s can not be built from Go modules", text), "use "+defaultContainerd+", or source base")
	}
}

// runtimeFits holds containerd against the kubelet.
func (c *checker) runtimeFits(runtime, kubelet *version.Version) {
	path := "containerd.version"
	if c.n.Containerd.Source == "base" {
		path = "containerd.source"
	}
	if runtime.Segments()[0] != 1 || c.bad("containerd.version") {
		return
	}
	limit := version.Must(version.NewVersion(noContainerd1From))
	if kubelet.GreaterThanOrEqual(limit) {
		c.fail(path, sprintf("containerd %s does not work with kubelet %s", runtime.Original(), kubelet), "use "+defaultContainerd)
		return
	}
	c.warn(path, sprintf("containerd %s works with kubelet %s, but no longer from %s on", runtime.Original(), kubelet, noContainerd1From), "use "+defaultContainerd)
}

// minorOf returns "1.37" of 1.37.2.
func minorOf(v *version.Version) string {
	s := v.Segments()
	return sprintf("%d.%d", s[0], s[1])
}

// supported names the minors for a hint, the newest known patch of each.
func supported() string { return orList(KubernetesVersions()) }
