// Package dpkg lays out Debian packages as dpkg(1) would, in memory: no root, no
// chroot, and no program of theirs is run. What their maintainer scripts would have
// done is done as data instead; table.yaml says for each script what stands for it,
// and a script that it does not know is an error. It fetches nothing and decides
// nothing: the packages are given.
package dpkg

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Package is one package on its way into the tree.
type Package struct {
	Name, Version, Arch string

	Control deb.Paragraph
	Members map[string][]byte // of its control archive
	Files   *tree.Tree        // its layer
}

// New is the package of a .deb and of the layers that Layer and Indices made of it, lowest first.
func New(p *deb.Package, layers ...string) (*Package, error) {
	t := tree.New()
	for _, l := range layers {
		if err := t.ApplyTar(l); err != nil {
			return nil, err
		}
	}
	get := func(field string) string { return strings.TrimSpace(p.Control.Get(field)) }
	return &Package{Name: get("Package"), Version: get("Version"), Arch: get("Architecture"),
		Control: p.Control, Members: p.Members, Files: t}, nil
}

// admin is dpkg's database.
const admin = "var/lib/dpkg/"

// infoName is the stem of a package's files below info; of one that may be there for
// several architectures at a time, the architecture belongs to it.
func infoName(control deb.Paragraph) string {
	name := control.Get("Package")
	if control.Get("Multi-Arch") == "same" {
		name += ":" + control.Get("Architecture")
	}
	return name
}

// Layer writes what a package brings as an uncompressed tar archive: its files, but
// those that the filter leaves out, and dpkg's record of it below var/lib/dpkg/info. What the
// package has in /bin, /lib and the like lies in /usr, where the base's links lead.
func Layer(p *deb.Package, keep Filter, w io.Writer) error {
	out := tar.NewWriter(w)
	var list strings.Builder
	err := p.Walk(func(h *tar.Header, content io.Reader) error {
		list.WriteString("/" + h.Name + "\n") // dpkg lists what it leaves out, too
		if !keep.Keeps("/"+h.Name, h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeSymlink) {
			return nil
		}
		if base := path.Base(h.Name); strings.HasPrefix(base, ".wh.") {
			return fmt.Errorf("%q: a layer takes this name for a removal", h.Name)
		}
		at, link := inUsr(h.Name, h.Typeflag == tar.TypeDir), h.Linkname
		if h.Typeflag == tar.TypeLink {
			link = inUsr(link, false)
		}
		plain := &tar.Header{Typeflag: h.Typeflag, Name: at, Linkname: link, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid,
			Size: h.Size, ModTime: repro.Epoch(), Format: tar.FormatPAX, PAXRecords: xattrs(h)}
		if err := out.WriteHeader(plain); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
		_, err := io.Copy(out, content)
		return err
	})
	if err != nil {
		return err
	}
	records := maps.Clone(p.Members)
	records["list"] = []byte(list.String())
	for _, name := range slices.Sorted(maps.Keys(records)) {
		mode := int64(0o644)
		if slices.Contains(scriptNames, name) || name == "prerm" || name == "postrm" {
			mode = 0o755
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: admin + "info/" + infoName(p.Control) + "." + name, Mode: mode,
			Size: int64(len(records[name])), ModTime: repro.Epoch(), Format: tar.FormatPAX}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := out.Write(records[name]); err != nil {
			return err
		}
	}
	return out.Close()
}

// inUsr is where a path lies in a merged /usr. A folder that is one of the links itself is that of /usr.
func inUsr(p string, folder bool) string {
	top, _, below := strings.Cut(p, "/")
	if merged[top] && (below || folder) {
		return "usr/" + p
	}
	return p
}

func xattrs(h *tar.Header) map[string]string {
	out := map[string]string{}
	for key, value := range h.PAXRecords {
		if strings.HasPrefix(key, "SCHILY.xattr.") {
			out[key] = value
		}
	}
	return out
}

// Filter is dpkg's path-exclude and path-include (dpkg(1)): the last pattern that matches decides.
type Filter []rule

type rule struct {
	include bool
	pattern string
	match   *regexp.Regexp
}

// NewFilter reads lines as dpkg.cfg has them: path-exclude=GLOB, path-include=GLOB.
func NewFilter(lines []string) (f Filter, err error) {
	for _, line := range lines {
		key, glob, _ := strings.Cut(line, "=")
		if key != "path-exclude" && key != "path-include" {
			return nil, fmt.Errorf("%q is neither path-exclude= nor path-include=", line)
		}
		re := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(glob)) // fnmatch(3) without flags: * matches a slash, too
		f = append(f, rule{key == "path-include", glob, regexp.MustCompile("^(?s:" + re + ")$")})
	}
	return f, nil
}

// Keeps says whether a path is taken. A folder or link that is left out stays all the
// same where an include could match below it.
func (f Filter) Keeps(p string, folderOrLink bool) bool {
	keep := true
	for _, r := range f {
		if r.include == keep {
			continue
		}
		if r.match.MatchString(p) {
			keep = r.include
		}
	}
	if keep || !folderOrLink {
		return keep
	}
	for _, r := range f {
		fixed, _, _ := strings.Cut(r.pattern, "*")
		if r.include && strings.HasPrefix(p, strings.TrimRight(fixed, "/")) {
			return true
		}
	}
	return false
}

func text(b []byte) string { return string(bytes.ToValidUTF8(b, []byte("\uFFFD"))) }
