package spec

import (
	"slices"

	"github.com/imgbuild/imgbuild/internal/arch"
)

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
// version series of the base's own package. ClusterAPI says whether its cloud-init is one
// process for all stages (25.1 and newer, as upstream has it), whose unit the node starts.
var bases = []struct {
	Name, Containerd string
	ClusterAPI       bool
}{
	{"debian-trixie", "1.7", true},
	{"ubuntu-noble", "2.2", false},
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
	arches            = arch.All()
	baseBuilders      = []string{"imgbuild", "mmdebstrap"}
	kernels           = []string{"cloud", "generic"}
	kubernetesSources = []string{"auto", "release", "gomodule", "dir", "oci"}
	containerdSources = []string{"auto", "base", "gomodule", "release", "dir"}
	proxyModes        = []string{"nftables", "iptables"}
	formats           = []string{"raw", "qcow2", "raw.zst", "raw.gz", "vmdk", "ova", "vhd", "vhdx", "gce", "containerdisk", "iso", "netboot", "ignition", "butane", "cloud-init", "nocloud", "nocloud-fat", "sysext", "sysext-tar", "sysext-images"}
	bootstraps        = []string{"imgbuild", "cluster-api"}
	hosts             = []string{"debian", "flatcar", "fcos"}
	keeps             = []string{"modules", "hwdb", "gconv", "perl", "cni-plugins", "ctr"}
)

// configs are the formats that make a node of a host.
var configs = []string{"ignition", "butane", "cloud-init", "nocloud", "nocloud-fat"}

// pods lists the pod networks with how their packets can travel, the default first;
// a network without a way is none of imgbuild's business.
var pods = []struct {
	Name     string
	Backends []string
	Secret   bool // can encrypt
}{
	{"flannel", []string{"vxlan", "host-gw"}, false},
	{"calico", []string{"vxlan", "ipip", "bgp"}, true},
	{"cilium", []string{"vxlan", "geneve", "native"}, true},
	{"none", nil, false},
}

// Backends returns what cni.backend may be for a pod network, the default first.
func Backends(network string) []string {
	for _, p := range pods {
		if p.Name == network {
			return append([]string(nil), p.Backends...)
		}
	}
	return nil
}

// Networks returns the names of the pod networks.
func Networks() []string {
	var out []string
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

// canEncrypt are the pod networks that cni.encryption is for.
func canEncrypt() (out []string) {
	for _, p := range pods {
		if p.Secret {
			out = append(out, p.Name)
		}
	}
	return out
}

// anyBackend are all values of cni.backend.
func anyBackend() (out []string) {
	for _, p := range pods {
		for _, b := range p.Backends {
			if !slices.Contains(out, b) {
				out = append(out, b)
			}
		}
	}
	return out
}

// Keeps returns what spec key keep knows.
func Keeps() []string { return append([]string(nil), keeps...) }

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

// noClusterAPI says whether the named base is one that Cluster API's bootstrap is not for.
func noClusterAPI(base string) bool {
	for _, b := range bases {
		if b.Name == base {
			return !b.ClusterAPI
		}
	}
	return false
}
