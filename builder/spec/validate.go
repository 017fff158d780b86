package spec

import (
	"cmp"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Validate checks a node against every rule and returns all findings, each with
// the place where its value was written. It changes nothing.
func Validate(n *Node) Findings {
	c := &checker{n: n}
	c.strings(reflect.ValueOf(n).Elem(), "")
	c.required()
	c.base()
	c.host()
	c.versions()
	c.sources()
	c.networks()
	c.network()
	c.ports()
	c.boot()
	c.files()
	c.units()
	c.users()
	c.twice()
	slices.SortStableFunc(c.found, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message))
	})
	return c.found
}

// checker collects the findings on one node.
type checker struct {
	n     *Node
	found Findings
}

func (c *checker) fail(path, message, hint string) {
	c.found = append(c.found, Finding{Pos: c.n.origins.at(path), Path: path, Message: message, Hint: hint})
}

func (c *checker) warn(path, message, hint string) {
	c.found = append(c.found, Finding{Severity: Warning, Pos: c.n.origins.at(path), Path: path, Message: message, Hint: hint})
}

// bad reports whether the value at path has a finding, so that the rules on how
// values fit together keep silent about it.
func (c *checker) bad(path string) bool {
	return slices.ContainsFunc(c.found, func(f Finding) bool { return f.Path == path && f.Severity == Error })
}

// strings holds every string of v against its rule.
func (c *checker) strings(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range fields(v.Type()) {
			c.strings(v.FieldByIndex(f.Index), join(path, f.Key))
		}
	case reflect.Slice:
		for i := range v.Len() {
			c.strings(v.Index(i), sprintf("%s[%d]", path, i))
		}
	case reflect.Map:
		for _, key := range sortedKeys(v) {
			at := join(path, key)
			c.text(key, at, rules[path+".*key"])
			c.text(v.MapIndex(reflect.ValueOf(key)).String(), at, rules[path+".*"])
		}
	case reflect.String:
		if path == "kubernetes.kubeletVersion" && c.follows() {
			return
		}
		c.text(v.String(), path, rules[ruleKey(path)])
	}
}

func (c *checker) text(s, path string, r rule) {
	if s == "" {
		return
	}
	if message, hint := r.check(s); message != "" && !c.bad(path) {
		c.fail(path, message, hint)
	}
}

func sortedKeys(v reflect.Value) []string {
	var keys []string
	for it := v.MapRange(); it.Next(); {
		keys = append(keys, it.Key().String())
	}
	slices.Sort(keys)
	return keys
}

var listIndex = regexp.MustCompile(`\[[0-9]+\]`)

// ruleKey returns the key in rules for the value at path.
func ruleKey(path string) string { return listIndex.ReplaceAllString(path, "[]") }

// required finds what must be there; Load fills in all of it but a file's path.
func (c *checker) required() {
	n := c.n
	for path, value := range map[string]string{
		"apiVersion": n.APIVersion, "kind": n.Kind, "role": n.Role, "arch": n.Arch,
		"kubernetes.version": n.Kubernetes.Version, "kubernetes.kubeletVersion": n.Kubernetes.KubeletVersion,
		"kubernetes.podCIDR": n.Kubernetes.PodCIDR, "kubernetes.serviceCIDR": n.Kubernetes.ServiceCIDR,
		"containerd.version": n.Containerd.Version, "cni.name": n.CNI.Name, "output.name": n.Output.Name,
	} {
		if value == "" {
			c.fail(path, "missing", "give it a value")
		}
	}
	if len(n.Output.Formats) == 0 {
		c.fail("output.formats", "no format", "use "+orList(formats))
	}
}

// host checks that a config knows who reads it, and where the payload lies.
func (c *checker) host() {
	h := c.n.Host
	var first string
	for i, format := range c.n.Output.Formats {
		if format == "sysext-images" && !h.Images {
			c.fail(sprintf("output.formats[%d]", i), format+" is for hosts that do not pull", "say host.images: true, so that configs name it, too")
		}
		if !slices.Contains(configs, format) {
			continue
		}
		if first == "" {
			first = format
		}
		if h.OS != "" && h.OS != "debian" && format != "ignition" && format != "butane" {
			c.fail("host.os", h.OS+" reads no "+format, "use ignition for it")
		}
	}
	switch {
	case first == "":
		return
	case c.n.Bootstrap == "cluster-api":
		c.fail("bootstrap", "format "+first+" is for a host, on which imgbuild's own agent joins", "build a disk image for Cluster API")
	case h.OS == "":
		c.fail("host.os", "format "+first+" is for a host, and none is named", "use "+orList(hosts)+", or --base")
	}
	if h.Payload == "" {
		c.fail("host.payload", "format "+first+" names the payload by a URL", "say in which folder hosts will find the file that format sysext writes: https://files.example/nodes")
	}
}

// base checks that there is one base and that the rest fits to it.
func (c *checker) base() {
	b := c.n.Base
	switch {
	case b.Name == "" && b.OCI == "":
		c.fail("base.name", "missing", "use "+orList(baseNames())+", or set base.oci")
	case b.Name != "" && b.OCI != "":
		c.fail("base.oci", "there is a base.name, too", "remove one of them")
	case b.OCI != "":
		for path, given := range map[string]bool{"base.builder": b.Builder != "", "base.kernel": b.Kernel != "", "base.mirror": b.Mirror != "", "base.keyring": b.Keyring != "",
			"base.repositories": len(b.Repositories) > 0, "base.packages": len(b.Packages) > 0} {
			if given {
				c.fail(path, "an image from base.oci is taken as it is", "remove it, or put it into the image")
			}
		}
	}
	if c.n.Bootstrap == "cluster-api" && noClusterAPI(b.Name) {
		c.fail("bootstrap", sprintf("the cloud-init of %s has other units than the node starts", b.Name), "use base.name debian-trixie")
	}
	for i, r := range b.Repositories {
		for key, value := range map[string]string{"url": r.URL, "suite": r.Suite, "keyring": r.Keyring} {
			if value == "" {
				c.fail(sprintf("base.repositories[%d].%s", i, key), "missing", "give it a value")
			}
		}
	}
}

// sources checks that a source has what it needs and nothing is given in vain.
func (c *checker) sources() {
	k, r := c.n.Kubernetes, c.n.Kubernetes.Release
	for _, need := range []struct{ source, of, path, value string }{
		{k.Source, "dir", "kubernetes.dir", k.Dir},
		{k.Source, "oci", "kubernetes.oci", k.OCI},
		{c.n.Containerd.Source, "dir", "containerd.dir", c.n.Containerd.Dir},
	} {
		sourcePath := need.path[:strings.Index(need.path, ".")] + ".source"
		switch {
		case need.source == need.of && need.value == "":
			c.fail(sourcePath, sprintf("%q needs %s", need.of, need.path), "set it to where the parts lie")
		case need.source != need.of && need.value != "":
			c.fail(need.path, sprintf("not used by source %q", need.source), sprintf("set %s to %q or remove it", sourcePath, need.of))
		}
	}
	if k.Source == "release" || k.Source == "auto" {
		return
	}
	for path, value := range map[string]string{"kubernetes.release.url": r.URL, "kubernetes.release.registry": r.Registry, "kubernetes.release.roots": r.Roots} {
		if value != "" {
			c.fail(path, sprintf("not used by source %q", k.Source), `set kubernetes.source to "release" or remove it`)
		}
	}
}

// ports checks the numbers that the pattern lets through.
func (c *checker) ports() {
	for i, allow := range c.n.Firewall.Allow {
		at := sprintf("firewall.allow[%d]", i)
		if c.bad(at) {
			continue
		}
		_, numbers, _ := strings.Cut(allow, "/")
		low, high, ranged := strings.Cut(numbers, "-")
		if !ranged {
			high = low
		}
		first, _ := strconv.Atoi(low)
		last, _ := strconv.Atoi(high)
		switch {
		case first < 1 || last > 65535 || last < 1 || first > 65535:
			c.fail(at, sprintf("%s is not a port", quote(allow)), "ports are 1 to 65535")
		case first > last:
			c.fail(at, sprintf("the range %s is empty", quote(allow)), sprintf("write it as %d-%d", last, first))
		}
	}
}

// ownWords are the kernel parameters that the image decides; two of them would
// make a node that does not boot or is not sealed.
var ownWords = []string{"root", "roothash", "rootflags", "rootfstype", "ro", "rw", "init", "rdinit", "console", "systemd.unit", "systemd.verity",
	"systemd.unified_cgroup_hierarchy", "systemd.legacy_systemd_cgroup_controller"}

// boot checks how the machine boots, and what the kernel gets to know.
func (c *checker) boot() {
	if c.n.Disk.BIOS && c.n.Arch != "amd64" {
		c.fail("disk.bios", "machines of "+c.n.Arch+" have no BIOS", "remove it")
	}
	for i, word := range c.n.Boot.Cmdline {
		name, _, _ := strings.Cut(word, "=")
		at := sprintf("boot.cmdline[%d]", i)
		switch {
		case name == "console":
			c.fail(at, "consoles have a key of their own", "use boot.console")
		case slices.Contains(ownWords, name):
			c.fail(at, sprintf("%q is decided by the image", name), "remove it")
		case hasToken(word):
			c.fail(at, "holds what looks like a bootstrap token", noSecrets)
		}
	}
	for key, value := range c.n.Boot.Sysctls {
		if want, ok := needed[strings.ReplaceAll(key, "/", ".")]; ok && want.value != value {
			c.fail("boot.sysctls."+key, sprintf("%s is no value for a node: %s", quote(value), want.why), sprintf("remove it, or set it to %q", want.value))
		}
	}
}

// needed are the kernel settings without which a node does not come up.
var needed = map[string]struct{ value, why string }{
	"vm.overcommit_memory":               {"1", protects},
	"vm.panic_on_oom":                    {"0", protects},
	"kernel.panic":                       {"10", protects},
	"kernel.panic_on_oops":               {"1", protects},
	"kernel.keys.root_maxkeys":           {"1000000", protects},
	"kernel.keys.root_maxbytes":          {"25000000", protects},
	"net.ipv4.ip_forward":                {"1", "kubeadm's preflight refuses it, and no pod reaches another"},
	"net.bridge.bridge-nf-call-iptables": {"1", "services do not reach the pods of their own node"},
}

const protects = "the kubelet refuses to start (protectKernelDefaults)"

// notInImage are the folders whose content is not the image's: made at boot, or
// kept on /var, of which the image holds nothing.
var notInImage = []string{"/var", "/run", "/proc", "/sys", "/dev", "/tmp", "/boot", "/efi", "/home", "/root", "/opt",
	"/etc/kubernetes", "/etc/cni/net.d", "/etc/machine-id", "/etc/ssh/ssh_host_rsa_key", "/etc/imgbuild", "/usr/lib/imgbuild"}

// files checks where files lie and that none is a secret.
func (c *checker) files() {
	for i, f := range c.n.Files {
		at := sprintf("files[%d]", i)
		if f.Path == "" {
			c.fail(at+".path", "missing", "give it a value")
			continue
		}
		for _, dir := range notInImage {
			if (f.Path == dir || strings.HasPrefix(f.Path, dir+"/")) && !c.bad(at+".path") {
				c.fail(at+".path", sprintf("what lies below %s does not come from the image", dir), "files in /etc or /usr do")
			}
		}
		if path.Clean(f.Path) != f.Path && !c.bad(at+".path") {
			c.fail(at+".path", quote(f.Path)+" is not a clean path", sprintf("write it as %q", path.Clean(f.Path)))
		}
		c.content(at+".content", f.Content)
	}
}

const noSecrets = "secrets come with the node config at boot, never with the image"

// content checks that a text is one, and no secret.
func (c *checker) content(at, text string) {
	if j := firstBad([]byte(text)); j >= 0 {
		c.fail(at, sprintf("byte 0x%02x is not text", text[j]), "binary files belong in a package or base image")
	}
	if hasKey(text) {
		c.fail(at, "holds a private key", noSecrets)
	}
	if hasToken(text) {
		c.fail(at, "holds what looks like a bootstrap token", noSecrets)
	}
}

// units checks that a unit is to do something, and not two things at once.
func (c *checker) units() {
	for i, u := range c.n.Units {
		at := sprintf("units[%d]", i)
		c.content(at+".content", u.Content)
		switch {
		case u.Name == "":
			c.fail(at+".name", "missing", "give it a value")
		case u.Mask && (u.Content != "" || u.WantedBy != ""):
			c.fail(at+".mask", "a unit that never starts needs no text and no wantedBy", "remove one of them")
		case u.Content == "" && u.WantedBy == "" && !u.Mask:
			c.fail(at, "says nothing about "+quote(u.Name), "give it content, wantedBy or mask")
		case strings.HasPrefix(u.Name, "imgbuild-") || slices.Contains(ownUnits, u.Name):
			c.fail(at+".name", quote(u.Name)+" is what makes this a node", "add to it by a drop-in: a file below /etc/systemd/system/"+u.Name+".d")
		}
	}
}

// ownUnits are a node's own, besides those that are called imgbuild-.
var ownUnits = []string{"containerd.service", "kubelet.service"}

// users checks accounts.
func (c *checker) users() {
	for i, u := range c.n.Users {
		at := sprintf("users[%d]", i)
		if u.Name == "" {
			c.fail(at+".name", "missing", "give it a value")
		}
		const hint = "use 1000 to 59999, for each user another one"
		switch {
		case u.UID == 0:
			c.fail(at+".uid", "no number", hint)
		case u.UID < 1000 || u.UID > 59999:
			c.fail(at+".uid", sprintf("%d is not a person's", u.UID), hint)
		}
		if len(u.SSHAuthorizedKeys) > 0 && !c.n.SSH.Enabled {
			c.fail(at+".sshAuthorizedKeys", "nobody can log in: SSH is off", "say ssh.enabled: true, or remove them")
		}
	}
}

// twice finds what is in a list a second time.
func (c *checker) twice() {
	paths := make([]string, len(c.n.Files))
	for i, f := range c.n.Files {
		paths[i] = f.Path
	}
	var units, users, numbers []string
	for _, u := range c.n.Units {
		units = append(units, u.Name)
	}
	for _, u := range c.n.Users {
		users, numbers = append(users, u.Name), append(numbers, strconv.Itoa(u.UID))
	}
	for _, list := range []struct {
		path, item string
		values     []string
	}{
		{"base.packages", "", c.n.Base.Packages}, {"firewall.allow", "", c.n.Firewall.Allow},
		{"boot.modules", "", c.n.Boot.Modules}, {"keep", "", c.n.Keep}, {"boot.console", "", c.n.Boot.Console},
		{"files", ".path", paths}, {"units", ".name", units}, {"users", ".name", users}, {"users", ".uid", numbers}, {"output.formats", "", c.n.Output.Formats},
	} {
		seen := map[string]bool{}
		for i, v := range list.values {
			if seen[v] && v != "" {
				c.fail(sprintf("%s[%d]%s", list.path, i, list.item), quote(v)+" is there twice", "remove one of them")
			}
			seen[v] = true
		}
	}
}
