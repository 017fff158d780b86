package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/profiles"
)

// head is the beginning that every document in these tests has; what follows
// stands on line 3.
const head = "apiVersion: imgbuild.dev/v1alpha1\nkind: Node\n"

func load(role, document string, sets ...string) (*spec.Node, spec.Findings) {
	in := spec.Input{Role: role, Profiles: profiles.Files, Sets: sets}
	if document != "" {
		in.Files = []spec.Document{{Name: "node.yaml", Data: []byte(document)}}
	}
	return spec.Load(in)
}

// badCase is one bad input and the whole text that a user gets for it.
type badCase struct {
	name     string
	role     string // "master" if empty
	document string // after head
	sets     []string
	want     string
}

func TestBadInput(t *testing.T) {
	for _, group := range [][]badCase{badShape, badVersion, badValue, badFit, badSet} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				role := c.role
				if role == "" {
					role = "master"
				}
				n, found := load(role, head+c.document, c.sets...)
				if n != nil {
					t.Error("a node in spite of errors")
				}
				if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), found.Errors().Error()); diff != "" {
					t.Errorf("findings (-want +got):\n%s", diff)
				}
			})
		}
	}
}

var badShape = []badCase{
	{name: "unknown key", document: "kubernetes:\n  verison: 1.37.2\n",
		want: `node.yaml:4:3: kubernetes.verison: unknown key; did you mean "version"?`},
	{name: "unknown key elsewhere", document: "sysctls: {}\n",
		want: `node.yaml:3:1: sysctls: unknown key; did you mean "boot.sysctls"?`},
	{name: "unknown key, nothing near", document: "ssh:\n  zzzzzzz: 1\n",
		want: `node.yaml:4:3: ssh.zzzzzzz: unknown key; known here: enabled`},
	{name: "unknown key in a list", document: "files:\n  - path: /etc/motd\n    contents: x\n",
		want: `node.yaml:5:5: files[0].contents: unknown key; did you mean "content"?`},
	{name: "several at once", document: "arhc: amd64\nssh: {enabled: 1}\ncni:\n  name: weave\n",
		want: `
node.yaml:3:1: arhc: unknown key; did you mean "arch"?
node.yaml:4:16: ssh.enabled: got the number 1, want true or false
node.yaml:6:9: cni.name: "weave" is not known; use flannel, calico, cilium or none`},
	{name: "number for text", document: "kubernetes:\n  version: 1.36\n",
		want: `node.yaml:4:12: kubernetes.version: got the number 1.36, want text; write it in quotes: "1.36"`},
	{name: "text for bool", document: "firewall:\n  enabled: yes\n",
		want: `node.yaml:4:12: firewall.enabled: got the text "yes", want true or false`},
	{name: "text for list", document: "firewall:\n  allow: tcp/9100\n",
		want: `node.yaml:4:10: firewall.allow: got the text "tcp/9100", want a list; write it as ["tcp/9100"]`},
	{name: "list for mapping", document: "firewall: [tcp/9100]\n",
		want: `node.yaml:3:11: firewall: got a list, want keys and values`},
	{name: "mapping for text", document: "role: {name: master}\n",
		want: `node.yaml:3:7: role: got keys and values, want text`},
	{name: "nothing", document: "kubernetes:\n",
		want: `node.yaml:3:12: kubernetes: got nothing, want keys and values; give it a value or remove the key`},
	{name: "empty text", document: "kubernetes: {version: ''}\n",
		want: `node.yaml:3:23: kubernetes.version: empty; give it a value or remove the key`},
	{name: "number in octal", document: "files: [{path: /etc/x, mode: 0644}]\n",
		want: `node.yaml:3:30: files[0].mode: got the number 0644, want text; write it in quotes: "0644"`},
	{name: "fraction as setting", document: "boot: {sysctls: {vm.swappiness: 1.5}}\n",
		want: `node.yaml:3:33: boot.sysctls.vm.swappiness: got the number 1.5, want text or a whole number; write it in quotes: "1.5"`},
	{name: "duplicate key", document: "cni:\n  name: none\n  name: flannel\n",
		want: `node.yaml:5:3: cni.name: the key is there twice, first on line 4; remove one of them`},
	{name: "duplicate section", document: "cni: {name: none}\nssh: {enabled: true}\ncni: {name: none}\n",
		want: `node.yaml:5:1: cni: the key is there twice, first on line 3; remove one of them`},
	{name: "alias", document: "boot:\n  modules: &m [x]\n  cmdline: *m\n",
		want: `node.yaml:4:12: anchor "&m" is not accepted; write the value out where it is needed`},
	{name: "tag", document: "arch: !!binary YW1kNjQ=\n",
		want: `node.yaml:3:7: tag "!!binary" is not accepted; leave it out; the key decides the type`},
	{name: "merge key", document: "cni: {<<: {name: none}}\n",
		want: `node.yaml:3:7: cni.<<: unknown key; known here: name, version, backend, encryption, manifest`},
	{name: "two documents", document: "---\nkind: Node\n",
		want: `node.yaml:3:1: a second document begins here; write one document per file and give -f once for each`},
	{name: "tab", document: "cni:\n\tname: none\n",
		want: "node.yaml:4: found character that cannot start any token; YAML indents with spaces, not tabs; a value that begins with % @ or ` goes in quotes"},
	{name: "colon in value", document: "cni: name: none\n",
		want: `node.yaml:3: mapping values are not allowed in this context; check the indentation; a value with ": " in it goes in quotes`},
	{name: "open bracket", document: "firewall:\n  allow: [tcp/1,\nssh: {enabled: true}\n",
		want: `node.yaml:4: did not find expected ',' or ']'; check brackets, quotes and indentation near this line`},
	{name: "open quote", document: "arch: \"amd64\n",
		want: `node.yaml:3: found unexpected end of stream; check brackets, quotes and indentation near this line`},
	{name: "NUL", document: "arch: amd\x0064\n",
		want: `node.yaml:3:10: byte 0x00 is not text; save the file as UTF-8 without control characters`},
	{name: "escape", document: "arch: amd64 # \x1b[31m\n",
		want: `node.yaml:3:15: byte 0x1b is not text; save the file as UTF-8 without control characters`},
	{name: "not UTF-8", document: "arch: \xff\xfe\n",
		want: `node.yaml:3:7: byte 0xff is not text; save the file as UTF-8 without control characters`},
}

var badVersion = []badCase{
	{name: "no minor of ours", document: "kubernetes:\n  version: \"1.99\"\n",
		want: `node.yaml:4:12: kubernetes.version: Kubernetes 1.99 is not supported; use 1.37.2, 1.36.3 or 1.35.4`},
	{name: "no version", document: "kubernetes:\n  version: abc\n",
		want: `node.yaml:4:12: kubernetes.version: "abc" is not a version; write it as "1.37.2" or "1.36", without a leading "v"`},
	{name: "leading v", document: "kubernetes:\n  version: v1.37.2\n",
		want: `node.yaml:4:12: kubernetes.version: "v1.37.2" is not a version; write it as "1.37.2" or "1.36", without a leading "v"`},
	{name: "pre-release", document: "kubernetes:\n  version: 1.37.2-rc.1\n",
		want: `node.yaml:4:12: kubernetes.version: "1.37.2-rc.1" is not a version; write it as "1.37.2" or "1.36", without a leading "v"`},
	{name: "too old", document: "kubernetes:\n  version: 1.34.9\n",
		want: `node.yaml:4:12: kubernetes.version: Kubernetes 1.34.9 is not supported; use 1.37.2, 1.36.3 or 1.35.4`},
	{name: "kubelet newer", document: "kubernetes:\n  version: 1.36.3\n  kubeletVersion: 1.37.2\n",
		want: `node.yaml:5:19: kubernetes.kubeletVersion: kubelet 1.37.2 is newer than the control plane 1.36.3; use 1.36.3 or older`},
	{name: "kubelet newer patch", document: "kubernetes:\n  version: 1.36.3\n  kubeletVersion: 1.36.4\n",
		want: `node.yaml:5:19: kubernetes.kubeletVersion: kubelet 1.36.4 is newer than the control plane 1.36.3; use 1.36.3 or older`},
	{name: "kubelet too old", document: "kubernetes:\n  version: 1.37.2\n  kubeletVersion: 1.33.9\n",
		want: `node.yaml:5:19: kubernetes.kubeletVersion: kubelet 1.33.9 is more than 3 minors older than the control plane 1.37.2; use 1.34 or newer`},
	{name: "kubelet minor without patch", document: "kubernetes:\n  kubeletVersion: \"1.34\"\n",
		want: `node.yaml:4:19: kubernetes.kubeletVersion: no patch of 1.34 is known; give the version in full, with its patch`},
	{name: "containerd 3", document: "containerd:\n  version: 3.0.0\n",
		want: `node.yaml:4:12: containerd.version: containerd 3.0.0 is not supported; use 2.3.2`},
	{name: "containerd 1 from modules", document: "containerd:\n  version: 1.7.28\n  source: gomodule\n",
		want: `node.yaml:4:12: containerd.version: containerd 1.7.28 can not be built from Go modules; use 2.3.2, or source base`},
	{name: "containerd 2 from the base", document: "containerd:\n  version: 2.3.2\n  source: base\n",
		want: `node.yaml:4:12: containerd.version: debian-trixie has containerd 1.7, not 2.3.2; remove the version, or the source base`},
	{name: "flannel", document: "cni:\n  version: v0.26.7\n",
		want: `node.yaml:4:12: cni.version: "v0.26.7" is not a version; write it as "0.26.7", without a leading "v"`},
}

var badValue = []badCase{
	{name: "unknown role in file", document: "role: boss\n",
		want: `node.yaml:3:7: role: "boss" is not known; use master or worker`},
	{name: "other role in file", document: "role: worker\n",
		want: `node.yaml:3:7: role: "worker", but the node is built as master; remove the key or build it by "imgbuild worker"`},
	{name: "unknown role", role: "boss",
		want: `role: "boss" is not known; use master or worker`},
	{name: "unknown format", document: "output:\n  formats: [raw, qcow]\n",
		want: `node.yaml:4:18: output.formats[1]: "qcow" is not known; did you mean "qcow2"? known: raw, qcow2, raw.zst, raw.gz, vmdk, ova, vhd, vhdx, gce, containerdisk, iso, netboot, ignition, butane, cloud-init, nocloud, nocloud-fat, sysext, sysext-tar or sysext-images`},
	{name: "no format", document: "output:\n  formats: []\n",
		want: `node.yaml:4:12: output.formats: no format; use raw, qcow2, raw.zst, raw.gz, vmdk, ova, vhd, vhdx, gce, containerdisk, iso, netboot, ignition, butane, cloud-init, nocloud, nocloud-fat, sysext, sysext-tar or sysext-images`},
	{name: "unknown base", document: "base:\n  name: debian-bookworm\n",
		want: `node.yaml:4:9: base.name: "debian-bookworm" is not known; use debian-trixie or ubuntu-noble`},
	{name: "architecture", document: "arch: armhf\n",
		want: `node.yaml:3:7: arch: "armhf" is not known; use amd64 or arm64`},
	{name: "BIOS of arm64", document: "arch: arm64\ndisk:\n  bios: true\n",
		want: `node.yaml:5:9: disk.bios: machines of arm64 have no BIOS; remove it`},
	{name: "newline in word", document: "boot:\n  cmdline: [\"quiet\\nroot=/dev/sda\"]\n",
		want: `node.yaml:4:13: boot.cmdline[0]: "quiet\nroot=/dev/sda" is not a word of the kernel command line; use letters, digits and . _ , : / = @ + - only`},
	{name: "quote in word", document: "boot:\n  cmdline: ['a=\"b']\n",
		want: `node.yaml:4:13: boot.cmdline[0]: "a=\"b" is not a word of the kernel command line; use letters, digits and . _ , : / = @ + - only`},
	{name: "percent in package", document: "base:\n  packages: ['a%i']\n",
		want: `node.yaml:4:14: base.packages[0]: "a%i" is not a Debian package name; use lower-case letters, digits and + - . (at least two)`},
	{name: "package", document: "base:\n  packages: [Vim]\n",
		want: `node.yaml:4:14: base.packages[0]: "Vim" is not a Debian package name; use lower-case letters, digits and + - . (at least two)`},
	{name: "to keep", document: "keep: [module, ctr, ctr]\n",
		want: `
node.yaml:3:8: keep[0]: "module" is not known; did you mean "modules"? known: modules, hwdb, gconv, perl, cni-plugins or ctr
node.yaml:3:21: keep[2]: "ctr" is there twice; remove one of them`},
	{name: "words of the image", document: "boot:\n  cmdline: [root=/dev/sda, console=ttyS1]\n",
		want: `
node.yaml:4:13: boot.cmdline[0]: "root" is decided by the image; remove it
node.yaml:4:28: boot.cmdline[1]: consoles have a key of their own; use boot.console`},
	{name: "setting", document: "boot:\n  sysctls: {Net IPv4: 1}\n",
		want: `node.yaml:4:23: boot.sysctls.Net IPv4: "Net IPv4" is not the name of a kernel setting; write it as "net.ipv4.ip_forward"`},
	{name: "setting's value", document: "boot:\n  sysctls:\n    kernel.core_pattern: \"|/bin/sh -c 'x'\"\n",
		want: `node.yaml:5:26: boot.sysctls.kernel.core_pattern: "|/bin/sh -c 'x'" is not a kernel setting's value; use letters, digits and . _ , : / = @ + - only`},
	{name: "setting that keeps the kubelet down", document: "boot:\n  sysctls: {vm/overcommit_memory: 0, vm.panic_on_oom: 0}\n",
		want: `node.yaml:4:35: boot.sysctls.vm/overcommit_memory: "0" is no value for a node: the kubelet refuses to start (protectKernelDefaults); remove it, or set it to "1"`},
	{name: "ports", document: "firewall:\n  allow:\n    - tcp/0\n    - udp/70000\n    - tcp/20-10\n    - sctp/1\n    - tcp/22\n    - tcp/22\n",
		want: `
node.yaml:5:7: firewall.allow[0]: "tcp/0" is not a port; ports are 1 to 65535
node.yaml:6:7: firewall.allow[1]: "udp/70000" is not a port; ports are 1 to 65535
node.yaml:7:7: firewall.allow[2]: the range "tcp/20-10" is empty; write it as 10-20
node.yaml:8:7: firewall.allow[3]: "sctp/1" is not a port; write it as "tcp/9100" or "udp/30000-30100"
node.yaml:10:7: firewall.allow[5]: "tcp/22" is there twice; remove one of them`},
	{name: "file under /var", document: "files: [{path: /var/lib/x}]\n",
		want: `node.yaml:3:16: files[0].path: what lies below /var does not come from the image; files in /etc or /usr do`},
	{name: "file that climbs", document: "files: [{path: /etc/../root/x}]\n",
		want: `node.yaml:3:16: files[0].path: "/etc/../root/x" is not a clean path; write it as "/root/x"`},
	{name: "relative file", document: "files: [{path: etc/motd}]\n",
		want: `node.yaml:3:16: files[0].path: "etc/motd" is not an absolute file path; use letters, digits and . _ @ + : ~ - between single slashes`},
	{name: "file without path", document: "files: [{content: x}]\n",
		want: `node.yaml:3:9: files[0].path: missing; give it a value`},
	{name: "file twice", document: "files:\n  - path: /etc/motd\n  - path: /etc/motd\n",
		want: `node.yaml:5:11: files[1].path: "/etc/motd" is there twice; remove one of them`},
	{name: "set-user-id", document: "files: [{path: /etc/x, mode: \"4755\"}]\n",
		want: `node.yaml:3:30: files[0].mode: "4755" is not a mode; write it in quotes, as "0644"`},
	{name: "unit without a name", document: "units: [{mask: true}]\n",
		want: `node.yaml:3:9: units[0].name: missing; give it a value`},
	{name: "unit of no kind", document: "units: [{name: a.conf, mask: true}]\n",
		want: `node.yaml:3:16: units[0].name: "a.conf" is not the name of a systemd unit; write it as "backup.service"`},
	{name: "user without a number", document: "users: [{name: ann}]\n",
		want: `node.yaml:3:9: users[0].uid: no number; use 1000 to 59999, for each user another one`},
	{name: "number that is none", document: "users: [{name: ann, uid: many}]\n",
		want: "node.yaml:3:9: users[0].uid: no number; use 1000 to 59999, for each user another one\nnode.yaml:3:26: users[0].uid: got the text \"many\", want a number"},
	{name: "key with a command", document: "ssh: {enabled: true}\nusers: [{name: ann, uid: 1000, sshAuthorizedKeys: ['command=\"x\" ssh-ed25519 AAAA']}]\n",
		want: `node.yaml:4:52: users[0].sshAuthorizedKeys[0]: "command=\"x\" ssh-ed25519 AAAA" is not a public SSH key; write the one line of a .pub file, without options`},
	{name: "token", document: "files:\n  - path: /etc/x.yaml\n    content: |\n      token: abcdef.0123456789abcdef\n",
		want: `node.yaml:5:14: files[0].content: holds what looks like a bootstrap token; secrets come with the node config at boot, never with the image`},
	{name: "private key", document: "files:\n  - path: /etc/x.pem\n    content: |\n      -----BEGIN PRIVATE KEY-----\n",
		want: `node.yaml:5:14: files[0].content: holds a private key; secrets come with the node config at boot, never with the image`},
	{name: "NUL in content", document: "files: [{path: /etc/x, content: \"a\\0b\"}]\n",
		want: `node.yaml:3:33: files[0].content: byte 0x00 is not text; binary files belong in a package or base image`},
	{name: "password in mirror", document: "base:\n  mirror: http://me:secret@mirror.example/debian\n",
		want: `node.yaml:4:11: base.mirror: "…@mirror.example/debian" is not an http(s) or file:/// URL; a user name, password or query has no place in it`},
	{name: "mirror on another host's disk", document: "base:\n  mirror: file://host/debian\n",
		want: `node.yaml:4:11: base.mirror: "file://host/debian" is not an http(s) or file:/// URL; a user name, password or query has no place in it`},
	{name: "repository without keys", document: "base:\n  repositories: [{url: \"https://packages.example/debian\", suite: trixie}]\n",
		want: `node.yaml:4:18: base.repositories[0].keyring: missing; give it a value`},
	{name: "token in URL", document: "kubernetes:\n  release:\n    url: https://release.example/?token=secret\n",
		want: `node.yaml:5:10: kubernetes.release.url: "https://release.example/?…" is not an http(s) URL; a user name, password or query has no place in it`},
	{name: "name with a folder", document: "output:\n  name: ../x\n",
		want: `node.yaml:4:9: output.name: "../x" is not a file name; use letters, digits and . _ - only; the folder is given by -o`},
	{name: "size", document: "disk:\n  varSize: 4GB\n",
		want: `node.yaml:4:12: disk.varSize: "4GB" is not a size; write it as "4Gi" or "512Mi"`},
	{name: "apiVersion", document: "", sets: []string{"apiVersion=imgbuild.dev/v2"},
		want: `--set apiVersion: "imgbuild.dev/v2" is not known; use imgbuild.dev/v1alpha1`},
}

var badFit = []badCase{
	{name: "a host by Cluster API", document: "bootstrap: cluster-api\nhost: {os: debian, payload: \"https://a.example\"}\noutput: {formats: [cloud-init]}\n",
		want: `node.yaml:3:12: bootstrap: format cloud-init is for a host, on which imgbuild's own agent joins; build a disk image for Cluster API`},
	{name: "unit that says nothing", document: "units: [{name: a.service}]\n",
		want: `node.yaml:3:9: units[0]: says nothing about "a.service"; give it content, wantedBy or mask`},
	{name: "unit that never starts, at boot", document: "units: [{name: a.service, mask: true, wantedBy: multi-user.target}]\n",
		want: `node.yaml:3:33: units[0].mask: a unit that never starts needs no text and no wantedBy; remove one of them`},
	{name: "unit of the node", document: "units: [{name: kubelet.service, mask: true}]\n",
		want: `node.yaml:3:16: units[0].name: "kubelet.service" is what makes this a node; add to it by a drop-in: a file below /etc/systemd/system/kubelet.service.d`},
	{name: "secret unit", document: "units: [{name: a.service, content: \"-----BEGIN PRIVATE KEY-----\"}]\n",
		want: `node.yaml:3:36: units[0].content: holds a private key; secrets come with the node config at boot, never with the image`},
	{name: "private key in base64", document: "files:\n  - path: /etc/admin.conf\n    content: |\n      client-key-data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlF\n",
		want: `node.yaml:5:14: files[0].content: holds a private key; secrets come with the node config at boot, never with the image`},
	{name: "token for the kernel", document: "boot: {cmdline: [join=abcdef.0123456789abcdef]}\n",
		want: `node.yaml:3:18: boot.cmdline[0]: holds what looks like a bootstrap token; secrets come with the node config at boot, never with the image`},
	{name: "control groups of old", document: "boot: {cmdline: [systemd.unified_cgroup_hierarchy=0]}\n",
		want: `node.yaml:3:18: boot.cmdline[0]: "systemd.unified_cgroup_hierarchy" is decided by the image; remove it`},
	{name: "number of the system's", document: "users: [{name: ann, uid: 101}]\n",
		want: `node.yaml:3:26: users[0].uid: 101 is not a person's; use 1000 to 59999, for each user another one`},
	{name: "two users, one number", document: "users:\n- {name: ann, uid: 1000}\n- {name: bob, uid: 1000}\n",
		want: `node.yaml:5:20: users[1].uid: "1000" is there twice; remove one of them`},
	{name: "user that cannot log in", document: "users: [{name: ann, uid: 1000, sshAuthorizedKeys: [ssh-ed25519 AAAA]}]\n",
		want: `node.yaml:3:51: users[0].sshAuthorizedKeys: nobody can log in: SSH is off; say ssh.enabled: true, or remove them`},
	{name: "overlap with the default", document: "kubernetes:\n  podCIDR: 10.96.0.0/16\n",
		want: `node.yaml:4:12: kubernetes.podCIDR: 10.96.0.0/16 overlaps kubernetes.serviceCIDR 10.96.0.0/12; choose networks that have no address in common`},
	{name: "overlap by the services", document: "kubernetes:\n  serviceCIDR: 10.244.128.0/20\n",
		want: `node.yaml:4:16: kubernetes.serviceCIDR: 10.244.128.0/20 overlaps kubernetes.podCIDR 10.244.0.0/16; choose networks that have no address in common`},
	{name: "bits beyond the mask", document: "kubernetes:\n  podCIDR: 10.244.1.0/16\n",
		want: `node.yaml:4:12: kubernetes.podCIDR: 10.244.1.0/16 has bits beyond its mask; write it as "10.244.0.0/16"`},
	{name: "no network", document: "kubernetes:\n  podCIDR: 10.244.0.0\n  serviceCIDR: fd00::/108\n",
		want: `
node.yaml:4:12: kubernetes.podCIDR: "10.244.0.0" is not an IPv4 network; write it as "10.244.0.0/16"
node.yaml:5:16: kubernetes.serviceCIDR: "fd00::/108" is not an IPv4 network; write it as "10.96.0.0/12"`},
	{name: "impossible network", document: "kubernetes:\n  podCIDR: 10.300.0.0/16\n  serviceCIDR: 10.0.0.0/33\n",
		want: `
node.yaml:4:12: kubernetes.podCIDR: "10.300.0.0/16" is not an IPv4 network; write it as "10.244.0.0/16"
node.yaml:5:16: kubernetes.serviceCIDR: "10.0.0.0/33" is not an IPv4 network; write it as "10.96.0.0/12"`},
	{name: "too large, too small", document: "kubernetes:\n  podCIDR: 192.168.1.0/26\n  serviceCIDR: 10.0.0.0/8\n",
		want: `
node.yaml:4:12: kubernetes.podCIDR: a /26 network is too small; kubeadm takes /8 to /24
node.yaml:5:16: kubernetes.serviceCIDR: a /8 network is too large; kubeadm takes /12 to /28`},
	{name: "loopback", document: "kubernetes:\n  podCIDR: 127.0.0.0/16\n",
		want: `node.yaml:4:12: kubernetes.podCIDR: 127.0.0.0/16 is in 127.0.0.0/8, which is loopback; use a private network, such as one in 10.0.0.0/8`},
	{name: "Cluster API on Ubuntu", document: "bootstrap: cluster-api\nbase:\n  name: ubuntu-noble\n",
		want: `node.yaml:3:12: bootstrap: the cloud-init of ubuntu-noble has other units than the node starts; use base.name debian-trixie`},
	{name: "two bases", document: "base:\n  name: debian-trixie\n  oci: ./layout\n",
		want: `node.yaml:5:8: base.oci: there is a base.name, too; remove one of them`},
	{name: "packages into an image", document: "base:\n  oci: ./layout\n  packages: [vim]\n",
		want: `node.yaml:5:13: base.packages: an image from base.oci is taken as it is; remove it, or put it into the image`},
	{name: "dir without folder", document: "kubernetes:\n  source: dir\n",
		want: `node.yaml:4:11: kubernetes.source: "dir" needs kubernetes.dir; set it to where the parts lie`},
	{name: "folder without dir", document: "kubernetes:\n  dir: ./parts\n",
		want: `node.yaml:4:8: kubernetes.dir: not used by source "auto"; set kubernetes.source to "dir" or remove it`},
	{name: "release without use", document: "kubernetes:\n  source: gomodule\n  release:\n    url: https://release.example/\n",
		want: `node.yaml:6:10: kubernetes.release.url: not used by source "gomodule"; set kubernetes.source to "release" or remove it`},
	{name: "backend without CNI", document: "cni:\n  name: none\n  backend: vxlan\n",
		want: `node.yaml:5:12: cni.backend: not used by cni.name "none"; remove it`},
	{name: "backend of another CNI", document: "cni:\n  name: flannel\n  backend: geneve\n",
		want: `node.yaml:5:12: cni.backend: flannel has no backend "geneve"; use vxlan or host-gw`},
	{name: "no backend at all", document: "cni:\n  backend: udp\n",
		want: `node.yaml:4:12: cni.backend: "udp" is not known; use vxlan, host-gw, ipip, bgp, geneve or native`},
	{name: "CNI without its manifest", document: "cni:\n  name: calico\n",
		want: `
node.yaml:4:3: cni.manifest.file: missing: calico is not on board; name the file with its manifest, or set cni.name to none and apply it yourself
node.yaml:4:3: cni.manifest.sha256: missing; write the 64 digits that sha256sum prints for the manifest`},
	{name: "manifest without use", document: "cni:\n  encryption: wireguard\n  manifest: {file: a.yaml, sha256: " + strings.Repeat("a", 64) + "}\n",
		want: `
node.yaml:4:15: cni.encryption: not used by cni.name "flannel"; remove it, or use calico or cilium
node.yaml:5:20: cni.manifest.file: not used by cni.name "flannel"; remove it
node.yaml:5:36: cni.manifest.sha256: not used by cni.name "flannel"; remove it`},
	{name: "version of another CNI", document: "cni:\n  name: cilium\n  version: \"1.18.0\"\n  manifest: {file: c.yaml, sha256: abc}\n",
		want: `
node.yaml:5:12: cni.version: not used by cni.name "cilium"; remove it
node.yaml:6:36: cni.manifest.sha256: "abc" is not a SHA-256 digest; write the 64 digits that sha256sum prints`},
}

var badSet = []badCase{
	{name: "set unknown", sets: []string{"kubernetes.verison=1.37.2"},
		want: `--set kubernetes.verison: unknown key; did you mean "version"?`},
	{name: "set elsewhere", sets: []string{"sysctls.vm.swappiness=0"},
		want: `--set sysctls.vm.swappiness: unknown key; did you mean "boot.sysctls"?`},
	{name: "set no value", sets: []string{"kubernetes.version"},
		want: `--set: "kubernetes.version" is not path=value; write it as --set kubernetes.version=1.37.2`},
	{name: "set a group", sets: []string{"cni=none"},
		want: `--set cni: names a group of values; set one of cni.name, cni.version, cni.backend, cni.encryption, cni.manifest`},
	{name: "set below a value", sets: []string{"kubernetes.version.minor=1"},
		want: `--set kubernetes.version.minor: has no part "minor"; leave it away`},
	{name: "set a map", sets: []string{"boot.sysctls=1"},
		want: `--set boot.sysctls: got the text "1", want keys and values`},
	{name: "set bool", sets: []string{"firewall.enabled=on"},
		want: `--set firewall.enabled: got the text "on", want true or false`},
	{name: "set files", sets: []string{"files=/etc/motd"},
		want: `--set files: can not be set on the command line; give it in a file with -f`},
	{name: "set version", sets: []string{"kubernetes.version=1.99"},
		want: `--set kubernetes.version: Kubernetes 1.99 is not supported; use 1.37.2, 1.36.3 or 1.35.4`},
	{name: "set list", sets: []string{"firewall.allow=tcp/1,tcp/x"},
		want: `--set firewall.allow: firewall.allow[1]: "tcp/x" is not a port; write it as "tcp/9100" or "udp/30000-30100"`},
	{name: "set role", sets: []string{"role=worker"},
		want: `--set role: "worker", but the node is built as master; remove the key or build it by "imgbuild worker"`},
	{name: "set newline", sets: []string{"output.name=a\nb"},
		want: `--set: "output.name=a\nb" holds control characters or bytes that are not UTF-8; give such values in a file with -f`},
}
