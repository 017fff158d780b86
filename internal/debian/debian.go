// Package debian reads Debian package archives as apt does, without apt: it
// verifies a suite's InRelease, fetches the package indices that this names, and
// finds the closed set of packages that a few names need. It follows the
// repository format (wiki.debian.org/DebianRepository/Format), deb822(5),
// sources.list(5) and Debian policy, chapter 7.
//
// It opens no package, installs nothing, and knows no distribution by name or
// address: archives and keys are the caller's.
package debian

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// Source is one suite of one archive, as a line of sources.list says it.
type Source struct {
	URL        string   // the archive's root: http, https or file
	Suite      string   // such as trixie or trixie-security
	Components []string // such as main
	Keys       Keys     // one of them must have signed
	Optional   bool     // an archive that never had the suite is passed over
}

// String is the source as errors and notes name it.
func (s Source) String() string { return s.Suite + " of " + s.URL }

// at is the address of a path below the archive's root.
func (s Source) at(name string) string {
	return strings.TrimSuffix(s.URL, "/") + "/" + escape(name)
}

// dist is the address of a path below the suite's folder.
func (s Source) dist(name string) string { return s.at(path.Join("dists", s.Suite, name)) }

// escape quotes a path for a URL as apt does, so that a pin has one spelling.
func escape(name string) string {
	return asApt.Replace((&url.URL{Path: name}).EscapedPath())
}

var asApt = strings.NewReplacer("+", "%2b", "~", "%7e")

// memory is what the newest Release of the source is remembered by: its address, however it is spelt,
// by http or https. By what a Release says of itself a mirror that lags behind another would be
// shut out, and whoever may sign for one archive could date another one's future.
func (s Source) memory() string {
	addr := strings.TrimSuffix(s.URL, "/")
	if u, err := url.Parse(s.URL); err == nil && u.Scheme == "file" {
		addr = "file://" + path.Clean(u.Path)
	} else if err == nil && u.Host != "" {
		host := strings.TrimSuffix(strings.ToLower(u.Host), map[string]string{"http": ":80", "https": ":443"}[u.Scheme])
		addr = "http://" + strings.TrimSuffix(host, ".") + strings.TrimSuffix(path.Clean("/"+u.Path), "/")
	}
	return "debian release " + addr + " " + s.Suite
}

// Package is one package of an index: where it lies and what it is to have.
type Package struct {
	Name, Version, Arch string // Arch is Debian's word; "all" for every architecture
	URL                 string
	Size                int64  // bytes
	SHA256              string // in hex

	essential  bool
	important  bool // Important: yes, or Protected: yes
	multiArch  string
	priority   int // 0 is required
	preDepends string
	depends    string
	conflicts  string
	breaks     string
	provides   string
	virtual    []deb.Relation // provides, read

	source   int // of the sources, which it is from
	weight   int // apt's pin priority of the source
	position int // among all packages, in the order that they were read
}

func (p *Package) String() string { return p.Name + " " + p.Version }

// packageName is Debian policy 5.6.1.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// snapshot is how an archive's address says the moment that it shows.
var snapshot = regexp.MustCompile(`/([0-9]{8}T[0-9]{6}Z)(/|$)`)

// moment is the time that a source is to be judged at: now, or for a snapshot
// (an address with 20260131T120000Z in it) the time that it was taken.
func (s Source) moment(now time.Time) time.Time {
	if m := snapshot.FindStringSubmatch(s.URL); m != nil {
		if at, err := time.Parse("20060102T150405Z", m[1]); err == nil && at.Before(now) {
			return at
		}
	}
	return now
}

// Arch is Debian's word for an architecture that Go has a word for.
func Arch(goarch string) string {
	words := map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el", "mips64le": "mips64el"}
	if word, ok := words[goarch]; ok {
		return word
	}
	return goarch
}

func (s Source) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{s}, args...)...)
}
