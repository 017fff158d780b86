package debian

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// Bad news about a Release file.
var (
	ErrExpired  = errors.New("the archive's Release has expired")
	ErrRollback = errors.New("the archive's Release is older than one that was seen before")
)

// ahead is how far an archive's clock may be before ours.
const ahead = time.Hour

// release is what a Release file says of a suite.
type release struct {
	suite, codename string
	date, until     time.Time // until is zero: for ever
	arches          []string
	components      []string
	byHash          bool
	allApart        bool // packages for all architectures have an index of their own
	weight          int  // apt's pin priority of the suite: apt_preferences(5)
	files           map[string]file
}

// file is one index as the Release lists it.
type file struct {
	size   int64
	sha256 string
}

func parseRelease(text []byte) (*release, error) {
	r, err := readRelease(text)
	if err != nil {
		return nil, fmt.Errorf("reading the Release: %w", err)
	}
	return r, nil
}

func readRelease(text []byte) (*release, error) {
	p, err := deb.ParseParagraph(text)
	if err != nil {
		return nil, err
	}
	r := &release{suite: p.Get("Suite"), codename: p.Get("Codename"), arches: strings.Fields(p.Get("Architectures")),
		byHash: p.Get("Acquire-By-Hash") == "yes", weight: 500, files: map[string]file{}}
	r.allApart = slices.Contains(r.arches, "all") && !slices.Contains(strings.Fields(p.Get("No-Support-for-Architecture-all")), "Packages")
	if p.Get("NotAutomatic") == "yes" {
		if r.weight = 1; p.Get("ButAutomaticUpgrades") == "yes" {
			r.weight = 100
		}
	}
	for _, c := range strings.Fields(p.Get("Components")) {
		r.components = append(r.components, path.Base(c)) // security suites say updates/main, and mean main
	}
	if r.date, err = parseDate(p.Get("Date")); err != nil {
		return nil, fmt.Errorf("its Date: %w", err)
	}
	if until := p.Get("Valid-Until"); until != "" {
		if r.until, err = parseDate(until); err != nil {
			return nil, fmt.Errorf("its Valid-Until: %w", err)
		}
	}
	return r, r.list(p.Get("SHA256"))
}

// list reads the SHA256 field: digest, size and path on each line.
func (r *release) list(text string) error {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 || !isSHA256(words[0]) {
			return fmt.Errorf("SHA256: cannot read %q", strings.TrimSpace(line))
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("SHA256: cannot read %q", strings.TrimSpace(line))
		}
		r.files[words[2]] = file{size, words[0]}
	}
	if len(r.files) == 0 {
		return errors.New("it lists no SHA256 digests")
	}
	return nil
}

// parseDate reads a date as Release files have it, always in UTC.
func parseDate(text string) (time.Time, error) {
	for _, layout := range []string{"Mon, 2 Jan 2006 15:04:05 UTC", "Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 +0000"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date in UTC", text)
}

// check judges a release that is offered as the suite's: whether it is of that
// suite, of its time, and not older than newest, which was seen before.
func (r *release) check(suite string, at, newest time.Time) error {
	switch {
	case suite != r.suite && suite != r.codename:
		return fmt.Errorf("it is the Release of another suite (Suite: %s, Codename: %s)", r.suite, r.codename)
	case r.date.After(at.Add(ahead)):
		return fmt.Errorf("its Release is of %s, which is still to come: this host's clock says %s; set it", stamp(r.date), stamp(at))
	case !r.until.IsZero() && at.After(r.until):
		return fmt.Errorf("%w: valid until %s, it is %s; take another mirror, name a snapshot by its address (…/20260131T120000Z), or set this host's clock if it is wrong", ErrExpired, stamp(r.until), stamp(at))
	case r.date.Before(newest):
		return fmt.Errorf("%w: got that of %s, had that of %s; the mirror lags behind, or somebody holds updates back: try later or take another mirror", ErrRollback, stamp(r.date), stamp(newest))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// packing is a way that an index may be packed, the wanted ones first.
var packings = []string{".xz", ".gz", ""}

// index finds the index of a component and architecture.
func (r *release) index(component, arch string) (name, packing string, f file, err error) {
	if !slices.Contains(r.components, component) {
		return "", "", f, fmt.Errorf("it has no component %q; there is %s", component, strings.Join(r.components, ", "))
	}
	if arch != "all" && !slices.Contains(r.arches, arch) {
		return "", "", f, fmt.Errorf("it has nothing for %s; there is %s", arch, strings.Join(r.arches, ", "))
	}
	name = path.Join(component, "binary-"+arch, "Packages")
	for _, packing := range packings {
		if f, ok := r.files[name+packing]; ok {
			return name + packing, packing, f, nil
		}
	}
	return "", "", f, fmt.Errorf("its Release lists no %s (.xz, .gz or plain) with a SHA256", name)
}
