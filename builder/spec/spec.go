// Package spec is the node as the user says it: the YAML document's types, the
// strict decoder, the merge profile → file → --set, the defaults that depend on
// other values, and the rules. It reports every finding with its file, line,
// column and way out. It touches no file system, network or clock, and it decides
// nothing about how a node is built.
package spec

// The document's version and kind, as they stand in every file.
const (
	APIVersion = "imgbuild.dev/v1alpha1"
	Kind       = "Node"
)

// Header says what a document is.
type Header struct {
	// Version of this format: imgbuild.dev/v1alpha1.
	APIVersion string `json:"apiVersion"`
	// Kind of the document: Node.
	Kind string `json:"kind"`

	origins origins // where each value was written; not part of the document
}

// Node describes one Kubernetes node. A Node that Load returned without errors is
// complete: every default is filled in and every version has three numbers.
type Node struct {
	Header
	// What the node is: master (control plane) or worker. The command says it; a file may repeat it.
	Role string `json:"role,omitempty"`
	// Processor architecture: amd64 or arm64, whatever the host's is.
	Arch string `json:"arch,omitempty"`
	// The operating system below.
	Base Base `json:"base"`
	// The Kubernetes parts.
	Kubernetes Kubernetes `json:"kubernetes"`
	// Who makes the node a member of its cluster: imgbuild's own agent, or cluster-api, by bootstrap data that cloud-init reads.
	Bootstrap string `json:"bootstrap,omitempty"`
	// The container runtime.
	Containerd Containerd `json:"containerd"`
	// The pod network.
	CNI CNI `json:"cni"`
	// The node's own packet filter.
	Firewall Firewall `json:"firewall"`
	// Remote login.
	SSH SSH `json:"ssh"`
	// Kernel command line, modules and settings.
	Boot Boot `json:"boot"`
	// Where the node gets the time.
	Time Time `json:"time"`
	// Files to put on the node.
	Files []File `json:"files,omitempty"`
	// systemd units: yours, or the base's own to start or to mask.
	Units []Unit `json:"units,omitempty"`
	// People and services with an account of their own. Nobody has a password.
	Users []User `json:"users,omitempty"`
	// What a node is built without unless it stands here: modules (of the kernel), hwdb, gconv, perl, cni-plugins, ctr.
	Keep []string `json:"keep,omitempty"`
	// Room on the disk.
	Disk Disk `json:"disk"`
	// Who reads a config, for the formats that are one.
	Host Host `json:"host,omitzero"`
	// What the build writes.
	Output Output `json:"output"`
}

// Base is the operating system.
type Base struct {
	// A name from the catalogue in images/. Leave it out where oci is set.
	Name string `json:"name,omitempty"`
	// An OCI image reference, or a folder with an OCI layout, instead of a name. It must hold a kernel and systemd.
	OCI string `json:"oci,omitempty"`
	// Package mirror, an http(s) URL or a file:/// URL of a copy on this host's disk; that of a snapshot (…/debian/20260131T120000Z) gives the packages of that day. Left out: the mirror of the base's distribution that this host's apt uses.
	Mirror string `json:"mirror,omitempty"`
	// File with the OpenPGP keys that alone may sign for the mirror. Left out: the distribution's.
	Keyring string `json:"keyring,omitempty"`
	// Package repositories beside the base's own, such as yours.
	Repositories []Repository `json:"repositories,omitempty"`
	// Kernel package: cloud (virtual machines) or generic (all hardware).
	Kernel string `json:"kernel,omitempty"`
	// Who lays out the packages: imgbuild itself, which runs none of their programs, or mmdebstrap, which runs their
	// maintainer scripts and needs user namespaces. A package whose scripts imgbuild does not know needs the latter.
	// Left out: imgbuild.
	Builder string `json:"builder,omitempty"`
	// Additional packages of the base, by name.
	Packages []string `json:"packages,omitempty"`
}

// Repository is one suite of a package repository.
type Repository struct {
	// Its address, an http(s) or file:/// URL: what lies below has dists/SUITE/InRelease.
	URL string `json:"url"`
	// Suite or codename, as its Release says it.
	Suite string `json:"suite"`
	// Components. Left out: main.
	Components []string `json:"components,omitempty"`
	// File with the OpenPGP keys that may sign for it.
	Keyring string `json:"keyring"`
}

// Kubernetes is the set of Kubernetes parts and the cluster's shape.
type Kubernetes struct {
	// Version of the control plane and of kubeadm, such as 1.37.2. A minor alone ("1.36", in quotes) takes its newest known patch.
	Version string `json:"version,omitempty"`
	// Version of the kubelet, if it is to be older than the control plane (by 3 minors at most).
	KubeletVersion string `json:"kubeletVersion,omitempty"`
	// Where the parts come from. auto takes the release and falls back to gomodule.
	Source string `json:"source,omitempty"`
	// Folder with the parts, for source dir.
	Dir string `json:"dir,omitempty"`
	// OCI image reference or layout folder with the parts, for source oci.
	OCI string `json:"oci,omitempty"`
	// Where the upstream release lies, for source release and auto.
	Release Release `json:"release"`
	// Addresses of the pods.
	PodCIDR string `json:"podCIDR,omitempty"`
	// Addresses of the services.
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
	// DNS name of the cluster.
	DNSDomain string `json:"dnsDomain,omitempty"`
	// How kube-proxy does its work.
	ProxyMode string `json:"proxyMode,omitempty"`
	// How long etcd's members wait for their leader before they elect another: 1s to 50s. Masters far from each other, or with slow disks, need more than the default, 1s.
	EtcdElectionTimeout string `json:"etcdElectionTimeout,omitempty"`
}

// Release is an upstream release host and registry.
type Release struct {
	// Base URL of the release host. Left out: the upstream one.
	URL string `json:"url,omitempty"`
	// Registry host of the control-plane images. Left out: the upstream one.
	Registry string `json:"registry,omitempty"`
	// File with the certificates that release signatures are checked against. Left out: digests are checked, signatures are not.
	Roots string `json:"roots,omitempty"`
}

// Containerd is the container runtime.
type Containerd struct {
	// Version, such as 2.3.2. Left out: the default, or the base's own for source base.
	Version string `json:"version,omitempty"`
	// Where it comes from. base is the base's package (1.7 on Debian trixie, 2.2 on Ubuntu noble).
	Source string `json:"source,omitempty"`
	// Folder with the executables, for source dir.
	Dir string `json:"dir,omitempty"`
}

// CNI is the pod network.
type CNI struct {
	// Name: flannel is on board; calico and cilium come by their manifest; none where the cluster brings its own.
	Name string `json:"name,omitempty"`
	// Version of flannel. Left out: the default. Of others their manifest says it.
	Version string `json:"version,omitempty"`
	// How packets travel between nodes: vxlan or host-gw (flannel), vxlan, ipip or bgp (calico), vxlan, geneve or native (cilium).
	Backend string `json:"backend,omitempty"`
	// Encryption between nodes, as the manifest sets it up: wireguard (calico, cilium). Opens its port.
	Encryption string `json:"encryption,omitempty"`
	// What the first master applies, for calico and cilium.
	Manifest Manifest `json:"manifest,omitzero"`
}

// Manifest is a file with Kubernetes objects, pinned.
type Manifest struct {
	// The file, seen from the folder that imgbuild runs in.
	File string `json:"file,omitempty"`
	// Its SHA-256 digest in hex, such as sha256sum prints it.
	SHA256 string `json:"sha256,omitempty"`
}

// Firewall is the node's own packet filter: input is denied but for what the
// role, the CNI and this list need.
type Firewall struct {
	// Whether the filter is loaded at boot.
	Enabled bool `json:"enabled"`
	// More ports to let in: "tcp/9100", "udp/30000-30100".
	Allow []string `json:"allow,omitempty"`
}

// SSH is remote login, by keys only.
type SSH struct {
	// Whether sshd runs. Keys come with the node config, never with the image.
	Enabled bool `json:"enabled"`
}

// Boot is what the kernel gets to know.
type Boot struct {
	// More words for the kernel command line.
	Cmdline []string `json:"cmdline,omitempty"`
	// Kernel consoles, the last one is /dev/console: "ttyS0,115200n8".
	Console []string `json:"console,omitempty"`
	// More kernel modules to load.
	Modules []string `json:"modules,omitempty"`
	// More kernel settings; they win over the built-in ones.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// Time is where the node gets the time.
type Time struct {
	// NTP servers. Left out: the base's default and what DHCP says.
	Servers []string `json:"servers,omitempty"`
}

// File is one file to put on the node.
type File struct {
	// Absolute path; not below /var, /run, /proc, /sys, /dev or /tmp, which are not in the image.
	Path string `json:"path"`
	// The text. No secrets: everyone who has the image can read it.
	Content string `json:"content,omitempty"`
	// Permission bits as a string of octal digits, such as "0644" (the default).
	Mode string `json:"mode,omitempty"`
}

// Unit is one systemd unit.
type Unit struct {
	// Its name, such as "backup.timer".
	Name string `json:"name"`
	// Its text. Left out: a package of the base brings it. A drop-in is a file below /etc/systemd/system/NAME.d.
	Content string `json:"content,omitempty"`
	// The unit that starts it at boot, such as multi-user.target. Left out: it is not started by itself.
	WantedBy string `json:"wantedBy,omitempty"`
	// Whether it must never start.
	Mask bool `json:"mask,omitempty"`
}

// User is an account.
type User struct {
	// Its name.
	Name string `json:"name"`
	// Its number, which must not change from image to image: 1000 to 59999.
	UID int `json:"uid"`
	// Groups of the base that it belongs to, besides one of its own.
	Groups []string `json:"groups,omitempty"`
	// Login shell. Left out: /bin/bash.
	Shell string `json:"shell,omitempty"`
	// Public keys that log in as this user, where ssh.enabled is true. Everyone who has the image can read them.
	SSHAuthorizedKeys []string `json:"sshAuthorizedKeys,omitempty"`
}

// Disk is room on the disk.
type Disk struct {
	// Least size of /var, which grows to the disk at first boot: "4Gi".
	VarSize string `json:"varSize,omitempty"`
	// Whether the disk boots by BIOS, too, with GRUB: for machines without UEFI. Nothing checks what BIOS boots.
	BIOS bool `json:"bios,omitempty"`
}

// Host is an operating system that imgbuild did not build, and that a config makes a node.
type Host struct {
	// The operating system: debian, flatcar or fcos (Fedora CoreOS).
	OS string `json:"os,omitempty"`
	// Its release, which decides the version of the format: "3185.0.0". Left out: a new one.
	Release string `json:"release,omitempty"`
	// URL of the folder that hosts fetch the payload from (format sysext), which the config names with its digest.
	Payload string `json:"payload,omitempty"`
	// Whether the container images ride along, as a second payload (format sysext-images), instead of being pulled.
	Images bool `json:"images,omitempty"`
	// Whether payloads bring their own hash tree, which the host's kernel checks every block against (dm-verity).
	Verity bool `json:"verity,omitempty"`
}

// Output is what the build writes.
type Output struct {
	// Formats of a disk: raw, qcow2, raw.zst, raw.gz, vmdk, ova, vhd, vhdx, gce, containerdisk; iso, a medium that installs it; netboot for network boot. For hosts: ignition, butane, cloud-init, nocloud, nocloud-fat, sysext and sysext-images, the payloads that these name, and sysext-tar.
	Formats []string `json:"formats,omitempty"`
	// Whether qcow2 has zstd clusters (QEMU 5.1 and newer read them), and a cloud-init config is gzip.
	Compress bool `json:"compress"`
	// File name without its ending. Left out: the role.
	Name string `json:"name,omitempty"`
}
