package bill

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// dpkgDir is where a sealed root keeps dpkg's database.
const dpkgDir = "usr/lib/sysimage/dpkg"

// readPackages reads dpkg's status file (deb-control(5) paragraphs).
func readPackages(root *tree.Tree, arch string) ([]*Component, error) {
	text, err := root.ReadFile(dpkgDir + "/status")
	if err != nil {
		return nil, nil // a base without dpkg
	}
	distribution := "debian"
	if release, err := root.ReadFile("usr/lib/os-release"); err == nil {
		for line := range strings.Lines(string(release)) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
				distribution = strings.Trim(id, `"`)
			}
		}
	}
	var out []*Component
	err = deb.EachParagraph(bytes.NewReader(text), []string{"Package", "Status", "Version", "Architecture", "Maintainer"}, func(p deb.Paragraph) error {
		name := p.Get("Package")
		if name == "" || !strings.HasSuffix(p.Get("Status"), " installed") {
			return nil
		}
		version := strings.NewReplacer("+", "%2B", ":", "%3A").Replace(p.Get("Version"))
		out = append(out, &Component{Kind: Package, Name: name, Version: p.Get("Version"), Supplier: p.Get("Maintainer"),
			PURL: "pkg:deb/" + distribution + "/" + strings.ReplaceAll(name, "+", "%2B") + "@" + version + "?arch=" + p.Get("Architecture")})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading dpkg's status: %w", err)
	}
	return out, nil
}

// owners knows whom a path belongs to.
type owners struct {
	tree *tree.Tree
	by   map[string]*Component // regular files by their path in the tree
}

// claimPackages reads the packages' lists of files. What imgbuild put in a
// package's place stays imgbuild's; of diverted files the list tells the new path
// in dpkg's file of diversions.
func (o *owners) claimPackages(packages []*Component) {
	names := map[string]*Component{}
	for _, c := range packages {
		names[c.Name] = c
	}
	diverted := map[string]string{}
	if text, err := o.tree.ReadFile(dpkgDir + "/diversions"); err == nil {
		lines := strings.Split(string(text), "\n")
		for i := 0; i+2 < len(lines); i += 3 { // from, to, by whom
			diverted[lines[i]+" "+lines[i+2]] = lines[i+1]
		}
	}
	paths := o.tree.Paths()
	for _, p := range paths {
		if path.Dir(p) != dpkgDir+"/info" {
			continue
		}
		name, ending, _ := cutLast(path.Base(p), ".")
		c := names[strings.SplitN(name, ":", 2)[0]]
		if c == nil {
			continue
		}
		o.by[p] = c // the database's own record of it
		if ending != "list" {
			continue
		}
		text, err := o.tree.ReadFile(p)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			file := lines.Text()
			for key, to := range diverted {
				if from, by, _ := strings.Cut(key, " "); from == file && by != c.Name {
					file = to
				}
			}
			o.claim(file, c)
		}
	}
	for _, g := range generated {
		if c := names[g.by]; c != nil {
			o.generated(paths, g.pattern, c)
		}
	}
	for _, c := range packages {
		if strings.HasPrefix(c.Name, "linux-image-") && len(c.Name) > len("linux-image-amd64") {
			o.generated(paths, "usr/lib/modules/*/modules.*", c)
			o.generated(paths, "usr/lib/modules/*/config", c)
		}
	}
}

func (o *owners) claim(file string, c *Component) {
	where, n, err := o.at(file)
	if err == nil && n.Mode.IsRegular() && o.by[where] == nil {
		o.by[where] = c
	}
}

// at follows links in the folders above, not the last one.
func (o *owners) at(file string) (string, *tree.Node, error) {
	dir, base := path.Split(path.Clean(file))
	real, _, err := o.tree.Resolve(dir)
	if err != nil {
		return "", nil, err
	}
	where := path.Join(real, base)
	n, ok := o.tree.Get(where)
	if !ok {
		return "", nil, errGone
	}
	return where, n, nil
}

func (o *owners) generated(paths []string, pattern string, c *Component) {
	begin, _, _ := strings.Cut(pattern, "*")
	for _, p := range paths {
		if !strings.HasPrefix(p, begin) {
			continue
		}
		if ok, _ := path.Match(pattern, p); ok && o.by[p] == nil {
			o.by[p] = c
		}
	}
}

// of is whose file p is, or nil.
func (o *owners) of(p string) *Component { return o.by[p] }

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// generated is what maintainer scripts and triggers make, with the package that
// makes it. It is a closed list, so that a file from elsewhere shows up as unowned.
var generated = []struct{ pattern, by string }{
	{"etc/group", "base-passwd"}, {"etc/passwd", "base-passwd"}, {"etc/shadow", "base-passwd"}, {"etc/gshadow", "base-passwd"},
	{"etc/subgid", "base-passwd"}, {"etc/subuid", "base-passwd"},
	{"etc/environment", "base-files"}, {"etc/motd", "base-files"}, {"etc/nsswitch.conf", "base-files"}, {"etc/profile", "base-files"}, {"usr/share/info/dir", "base-files"},
	{"etc/timezone", "tzdata"}, {"etc/hosts", "netbase"}, {"etc/networks", "netbase"}, {"etc/hosts.allow", "libwrap0"}, {"etc/hosts.deny", "libwrap0"},
	{"etc/ld.so.cache", "libc-bin"}, {"etc/modules", "kmod"}, {"etc/shells", "debianutils"},
	{"etc/pam.d/common-*", "libpam-runtime"}, {"etc/security/opasswd", "libpam-modules"},
	{"etc/ca-certificates.conf", "ca-certificates"}, {"etc/ssl/certs/ca-certificates.crt", "ca-certificates"},
	{"usr/lib/udev/hwdb.bin", "udev"},
	{dpkgDir + "/alternatives/*", "dpkg"}, {dpkgDir + "/triggers/*", "dpkg"}, {dpkgDir + "/info/format", "dpkg"}, {dpkgDir + "/*", "dpkg"},
}
