package spec

import (
	"regexp"
	"slices"
	"strings"
)

// rule says what one string may be: one of Enum, or a match of Pattern. Both go
// into the JSON Schema as they stand, so a pattern keeps to what Go and ECMA 262
// have in common. No pattern lets a control character, a quote, a backslash, a
// dollar or a percent sign through: these strings end up in unit files, in the
// kernel command line, in TOML, YAML and nft rules.
type rule struct {
	Enum    []string
	Pattern string
	Want    string   // "a version": what a value that does not match is not
	Hint    string   // the way out
	Later   []string // known, but not yet; never part of Enum
	Max     int      // length in bytes; 0 is maxText
}

// maxText is the length of a string where its rule names none.
const maxText = 255

const (
	wordHint   = "use letters, digits and . _ , : / = @ + - only"
	domainText = `[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*`
	reference  = `^[A-Za-z0-9./~][A-Za-z0-9._/:+~-]*(@sha256:[0-9a-f]{64})?$`
	anyPath    = `^[A-Za-z0-9._/~+@-]+$`
	webAddress = `^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/+=:@-]*)?$`
	mirror     = `^(https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/+=:@-]*)?|file:///[A-Za-z0-9._~/+=:@-]+)$`
)

// rules has one entry for every string of a Node, by path; "[]" stands for any item
// of a list and "*" for any key of a map, "*key" for the key itself.
var rules = map[string]rule{
	"apiVersion": {Enum: []string{APIVersion}},
	"kind":       {Enum: []string{Kind}},
	"role":       {Enum: roles},
	"arch":       {Enum: arches},

	"bootstrap": {Enum: bootstraps},

	"base.name":       {Enum: baseNames()},
	"base.oci":        {Pattern: reference, Want: "an image reference or a folder", Hint: `write it as "registry.example/os:tag" or "./layout"`},
	"base.mirror":     {Pattern: mirror, Want: "an http(s) or file:/// URL", Hint: "a user name, password or query has no place in it"},
	"base.keyring":    {Pattern: anyPath, Want: "a file name", Hint: pathHint},
	"base.builder":    {Enum: baseBuilders},
	"base.kernel":     {Enum: kernels},
	"base.packages[]": {Pattern: `^[a-z0-9][a-z0-9+.-]+$`, Want: "a Debian package name", Hint: "use lower-case letters, digits and + - . (at least two)"},

	"base.repositories[].url":          {Pattern: mirror, Want: "an http(s) or file:/// URL", Hint: "a user name, password or query has no place in it"},
	"base.repositories[].suite":        {Pattern: `^[A-Za-z0-9][A-Za-z0-9._/+-]*$`, Want: "a suite", Hint: `write it as "trixie"`},
	"base.repositories[].components[]": {Pattern: `^[A-Za-z0-9][A-Za-z0-9._+-]*$`, Want: "a component", Hint: `write it as "main"`},
	"base.repositories[].keyring":      {Pattern: anyPath, Want: "a file name", Hint: pathHint},

	"kubernetes.version":          {Pattern: `^[0-9]+\.[0-9]+(\.[0-9]+)?$`, Want: "a version", Hint: versionHint},
	"kubernetes.kubeletVersion":   {Pattern: `^[0-9]+\.[0-9]+(\.[0-9]+)?$`, Want: "a version", Hint: versionHint},
	"kubernetes.source":           {Enum: kubernetesSources},
	"kubernetes.dir":              {Pattern: anyPath, Want: "a folder", Hint: pathHint},
	"kubernetes.oci":              {Pattern: reference, Want: "an image reference or a folder", Hint: `write it as "registry.example/k8s:tag" or "./layout"`},
	"kubernetes.release.url":      {Pattern: webAddress, Want: "an http(s) URL", Hint: "a user name, password or query has no place in it"},
	"kubernetes.release.registry": {Pattern: `^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]+)?$`, Want: "a registry", Hint: `write it as "registry.example:5000/path"`},
	"kubernetes.release.roots":    {Pattern: anyPath, Want: "a file name", Hint: pathHint},
	"kubernetes.podCIDR":          {Pattern: `^[0-9.]+/[0-9]+$`, Want: "an IPv4 network", Hint: `write it as "10.244.0.0/16"`},
	"kubernetes.serviceCIDR":      {Pattern: `^[0-9.]+/[0-9]+$`, Want: "an IPv4 network", Hint: `write it as "10.96.0.0/12"`},
	"kubernetes.dnsDomain":        {Pattern: `^` + domainText + `$`, Want: "a DNS name", Hint: `write it as "cluster.local"`, Max: 64},
	"kubernetes.proxyMode":        {Enum: proxyModes},

	"kubernetes.etcdElectionTimeout": {Pattern: `^([1-9]|[1-4][0-9]|50)s$`, Want: "1s to 50s", Hint: `write it as "5s"`},

	"containerd.version": {Pattern: `^[0-9]+\.[0-9]+(\.[0-9]+)?$`, Want: "a version", Hint: `write it as "2.3.2", without a leading "v"`},
	"containerd.source":  {Enum: containerdSources},
	"containerd.dir":     {Pattern: anyPath, Want: "a folder", Hint: pathHint},

	"cni.name":    {Enum: Networks()},
	"cni.version": {Pattern: `^[0-9]+\.[0-9]+\.[0-9]+$`, Want: "a version", Hint: `write it as "0.26.7", without a leading "v"`},
	"cni.backend": {Enum: anyBackend()},

	"cni.encryption":      {Enum: []string{"wireguard"}},
	"cni.manifest.file":   {Pattern: anyPath, Want: "a file name", Hint: pathHint},
	"cni.manifest.sha256": {Pattern: `^[0-9a-f]{64}$`, Want: "a SHA-256 digest", Hint: "write the 64 digits that sha256sum prints"},

	"firewall.allow[]": {Pattern: `^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?$`, Want: "a port", Hint: `write it as "tcp/9100" or "udp/30000-30100"`},

	"boot.cmdline[]":    {Pattern: `^[A-Za-z0-9][A-Za-z0-9._,:/=@+-]*$`, Want: "a word of the kernel command line", Hint: wordHint},
	"boot.console[]":    {Pattern: `^[A-Za-z0-9]+(,[A-Za-z0-9]+)?$`, Want: "a console", Hint: `write it as "ttyS0,115200n8" or "tty0"`},
	"boot.modules[]":    {Pattern: `^[A-Za-z0-9][A-Za-z0-9_-]*$`, Want: "a module name", Hint: "use letters, digits, _ and -", Max: 64},
	"boot.sysctls.*":    {Pattern: `^[A-Za-z0-9_.,:/|@+-]+([ \t][A-Za-z0-9_.,:/|@+-]+)*$`, Want: "a kernel setting's value", Hint: wordHint},
	"boot.sysctls.*key": {Pattern: `^[a-z][a-z0-9_]*([./][A-Za-z0-9_-]+)+$`, Want: "the name of a kernel setting", Hint: `write it as "net.ipv4.ip_forward"`},

	"time.servers[]": {Pattern: `^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$`, Want: "a host name or address", Hint: `write it as "ntp.example.org"`},

	"files[].path":    {Pattern: `^(/[A-Za-z0-9._@+:~-]+)+$`, Want: "an absolute file path", Hint: "use letters, digits and . _ @ + : ~ - between single slashes"},
	"files[].content": {Max: MaxDocument},
	"files[].mode":    {Pattern: `^0[0-7]{3}$`, Want: "a mode", Hint: `write it in quotes, as "0644"`},

	"units[].name":     {Pattern: `^[A-Za-z0-9:_.@-]+\.(service|socket|timer|path|mount|automount|target|slice)$`, Want: "the name of a systemd unit", Hint: `write it as "backup.service"`},
	"units[].content":  {Max: MaxDocument},
	"units[].wantedBy": {Pattern: `^[A-Za-z0-9:_.@-]+\.(target|service|timer|socket)$`, Want: "the name of a unit", Hint: `write it as "multi-user.target"`},

	"users[].name":                {Pattern: `^[a-z_][a-z0-9_-]*$`, Want: "a user name", Hint: "use lower-case letters, digits, _ and -", Max: 31},
	"users[].groups[]":            {Pattern: `^[a-z_][a-z0-9_-]*$`, Want: "a group name", Hint: "use lower-case letters, digits, _ and -", Max: 31},
	"users[].shell":               {Pattern: `^(/[A-Za-z0-9._+-]+)+$`, Want: "the path of a shell", Hint: `write it as "/bin/bash"`},
	"users[].sshAuthorizedKeys[]": {Pattern: `^(ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]+( [A-Za-z0-9._@:/ +-]*)?$`, Want: "a public SSH key", Hint: "write the one line of a .pub file, without options", Max: 8192},

	"keep[]": {Enum: keeps},

	"disk.varSize":     {Pattern: `^[1-9][0-9]{0,5}(Mi|Gi|Ti)$`, Want: "a size", Hint: `write it as "4Gi" or "512Mi"`},
	"host.os":          {Enum: hosts},
	"host.release":     {Pattern: `^[0-9]+(\.[0-9]+)*$`, Want: "a release", Hint: `write it as "3185.0.0"`},
	"host.payload":     {Pattern: webAddress, Want: "an http(s) URL", Hint: "a user name, password or query has no place in it"},
	"output.formats[]": {Enum: formats},
	"output.name":      {Pattern: `^[A-Za-z0-9][A-Za-z0-9._-]*$`, Want: "a file name", Hint: "use letters, digits and . _ - only; the folder is given by -o", Max: 100},
}

const (
	versionHint = `write it as "1.37.2" or "1.36", without a leading "v"`
	pathHint    = "use letters, digits and . _ / ~ + @ - only"
)

// check returns what is wrong with s and the way out, or two empty strings.
func (r rule) check(s string) (message, hint string) {
	limit := r.Max
	if limit == 0 {
		limit = maxText
	}
	switch {
	case len(s) > limit:
		return sprintf("%d bytes long, %d are allowed", len(s), limit), "make it shorter"
	case slices.Contains(r.Later, s):
		return sprintf("%s is not supported yet", quote(s)), "use " + orList(r.Enum)
	case len(r.Enum) > 0 && !slices.Contains(r.Enum, s):
		hint := "use " + orList(r.Enum)
		if near := nearest(s, r.Enum); near != "" {
			hint = sprintf("did you mean %q? known: %s", near, orList(r.Enum))
		}
		return sprintf("%s is not known", quote(s)), hint
	case r.Pattern != "" && !regexp.MustCompile(r.Pattern).MatchString(s):
		return sprintf("%s is not %s", quote(s), r.Want), r.Hint
	}
	return "", ""
}

// orList joins names for a sentence: "a, b or c".
func orList(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
