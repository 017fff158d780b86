package spec

// This file is the one table of version facts: what is supported and what is the
// default. A new Kubernetes minor or patch is one line here.

// kubernetesMinors lists the supported minors, newest first; the first one is the
// default. Newest is the newest patch that this imgbuild knows; other patches may
// be asked for in full.
var kubernetesMinors = []struct{ Minor, Newest string }{
	{"1.37", "1.37.2"},
	{"1.36", "1.36.3"},
	{"1.35", "1.35.4"},
}

// bases lists the base operating systems of the catalogue. Containerd is the
// version series of the base's own package.
var bases = []struct{ Name, Containerd string }{
	{"debian-trixie", "1.7"},
}

// Versions of the parts that do not follow from kubeadm's own constants.
const (
	defaultContainerd = "2.3.2"
	defaultFlannel    = "0.26.7"
)

// The skew rules: https://kubernetes.io/releases/version-skew-policy/ for the kubelet
// (and kubeadm's MinimumKubeletVersion); kubelet 1.38 drops the fallback that
// containerd 1.x needs, until then kubeadm's preflight warns.
const (
	kubeletSkew       = 3
	noContainerd1From = "1.38"
)

// Formats and kinds that a value may have; the schema's enums.
var (
	roles             = []string{"master", "worker"}
	arches            = []string{"amd64"}
	kernels           = []string{"cloud", "generic"}
	kubernetesSources = []string{"auto", "release", "gomodule", "dir", "oci"}
	containerdSources = []string{"auto", "base", "gomodule", "release", "dir"}
	proxyModes        = []string{"nftables", "iptables"}
	networks          = []string{"flannel", "none"}
	backends          = []string{"vxlan", "host-gw"}
	formats           = []string{"raw", "qcow2"}
)

// Roles returns the roles that a node can have.
func Roles() []string { return append([]string(nil), roles...) }

// KubernetesVersions returns the newest known patch of each supported minor, newest
// first; the first one is the default.
func KubernetesVersions() []string {
	var out []string
	for _, m := range kubernetesMinors {
		out = append(out, m.Newest)
	}
	return out
}

func baseNames() []string {
	var out []string
	for _, b := range bases {
		out = append(out, b.Name)
	}
	return out
}

// newestPatch returns the newest known patch of a minor such as "1.36", or "".
func newestPatch(minor string) string {
	for _, m := range kubernetesMinors {
		if m.Minor == minor {
			return m.Newest
		}
	}
	return ""
}

// baseContainerd returns the containerd series of the named base, or "".
func baseContainerd(base string) string {
	for _, b := range bases {
		if b.Name == base {
			return b.Containerd
		}
	}
	return ""
}
