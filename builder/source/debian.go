package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/debian"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// DebianTools are the tools that mmdebstrap's way of laying out the Debian base needs
// on the build host, with the packages that have them.
var DebianTools = map[string]string{"mmdebstrap": "mmdebstrap", "apt-get": "apt", "dpkg-deb": "dpkg"}

// DebianBase asks for a set of packages of Debian or of what is made as Debian is. Mirror is an
// archive's address; empty takes the one that the host's own apt is told of. Keyring is a file whose
// keys alone may sign for the distribution; empty takes the catalogue's and the host's.
type DebianBase struct {
	Name         string // the catalogue's, such as debian-trixie
	Suite        string
	Arch         string // as Go names it
	Mirror       string
	Keyring      string
	Repositories []string // beside the distribution's, in one-line style: deb [signed-by=FILE] URL suite components
	Packages     []string // beside the essential ones

	apt, hostKeys string // where the host says what it has; empty: where its distribution has it
}

// aptFolder is where a host says which mirrors it takes.
const aptFolder = "/etc/apt"

// Resolve solves the package set against the signed indices of the suite, its
// updates and its security updates, and returns one pin for each package, sorted by name.
func (b DebianBase) Resolve(ctx context.Context, opt Options) ([]lock.Pin, error) {
	all, err := b.read(ctx, opt)
	if err != nil {
		return nil, err
	}
	return b.solve(all)
}

func (b DebianBase) read(ctx context.Context, opt Options) (*debian.Universe, error) {
	defer opt.Report.Stage("reading the package indices of " + b.Suite)()
	archive := debian.Archive{Store: opt.Store, Fetch: fetch.New(opt.Store, fetch.Options{Offline: opt.Offline,
		Progress: func(done, total int64) { opt.Report.Progress("package indices", done, total, "B") }}),
		Arch: debian.Arch(b.Arch), Now: repro.Now(), Note: opt.Report.Note}
	sources, err := b.sources(func(s debian.Source) error { return archive.Check(ctx, s) })
	if err != nil {
		return nil, err
	}
	all, err := archive.Read(ctx, sources)
	if err != nil {
		return nil, fmt.Errorf("reading the package indices: %w", err)
	}
	return all, nil
}

func (b DebianBase) solve(all *debian.Universe) ([]lock.Pin, error) {
	packages, err := all.Solve(b.Packages)
	if err != nil {
		return nil, fault.New(fault.Spec, "solving the package set of %s: %w", b.Name, err)
	}
	pins := make([]lock.Pin, len(packages))
	for i, p := range packages {
		pins[i] = lock.Pin{Request: b.Name, Kind: lock.KindBase, Source: "debian", Name: p.Name, Version: p.Version, Arch: p.Arch,
			URL: p.URL, Size: p.Size, Digest: "sha256:" + p.SHA256}
	}
	return pins, nil
}

// sources are the suite, its updates and its security updates, and then the
// operator's own repositories. Of several that the host knows, check says which is the distribution's.
func (b DebianBase) sources(check func(debian.Source) error) ([]debian.Source, error) {
	def, err := images.Find(b.Name)
	if err != nil {
		return nil, err
	}
	keys, err := b.keys()
	if err != nil {
		return nil, err
	}
	suite := func(addr, ending string, optional bool) debian.Source {
		return debian.Source{URL: addr, Suite: b.Suite + ending, Components: def.Components, Keys: keys, Optional: optional}
	}
	mirror, security := b.Mirror, ""
	if mirror == "" {
		mirrors, securities, err := b.hostMirrors(def)
		if err != nil {
			return nil, err
		}
		if mirror, err = first(mirrors, suite("", "", false), check); err != nil {
			return nil, err
		}
		if security, err = first(securities, suite("", "-security", false), check); err != nil {
			return nil, err
		}
	}
	out := []debian.Source{suite(mirror, "", false), suite(mirror, "-updates", true)}
	if beside, ok := replaceElement(mirror, def.Archive, def.Security); security == "" && ok {
		out = append(out, suite(beside, "-security", true))
	} else if security != "" {
		out = append(out, suite(security, "-security", false))
	}
	for _, line := range b.Repositories {
		src, err := readRepository(line)
		if err != nil {
			return nil, err
		}
		out = append(out, src)
	}
	return out, nil
}

// keys are those that may sign for the distribution.
func (b DebianBase) keys() (debian.Keys, error) {
	if b.Keyring != "" {
		keys, err := debian.ReadKeys(b.Keyring)
		if err != nil {
			return keys, fault.New(fault.Spec, "base.keyring: %w", err)
		}
		return keys, nil
	}
	keys, err := debian.ParseKeys(images.Keyring(b.Name))
	if err != nil {
		return keys, fmt.Errorf("images/%s: %w", b.Name, err)
	}
	def, err := images.Find(b.Name)
	if err != nil {
		return keys, err
	}
	host, err := debian.ReadKeys(cmp.Or(b.hostKeys, def.HostKeyring))
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	return keys.With(host), err
}

// hostMirrors are the archives that the host's apt is told of and that could be the distribution's, and
// those that could have its security updates. A stranger's may have such an address: signatures tell.
func (b DebianBase) hostMirrors(def images.Base) (mirrors, securities []string, err error) {
	folder := cmp.Or(b.apt, aptFolder)
	listed, err := debian.ReadListed(folder)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for a mirror of %s: %w; set base.mirror", def.Distribution, err)
	}
	apart := def.Archive != def.Security // else the suites tell which is which
	add := func(to *[]string, l debian.Listed, folder string, security bool) {
		if _, ok := replaceElement(l.URL, folder, ""); ok && (apart || hasSuite(l, security)) && !slices.Contains(*to, l.URL) {
			*to = append(*to, l.URL)
		}
	}
	for _, l := range listed {
		if !slices.Contains(l.Components, "main") || !strings.HasPrefix(l.URL, "http") || strings.ContainsAny(l.URL, "@?") { // a password would get into the lock
			continue
		}
		add(&mirrors, l, def.Archive, false)
		add(&securities, l, def.Security, true)
	}
	if mirrors == nil {
		err = fault.New(fault.Spec, "no mirror of %s is known: %s lists none (http or https, …/%s, component main); set base.mirror to the address of one", def.Distribution, folder, def.Archive)
	}
	return mirrors, securities, err
}

// hasSuite says whether of an archive a suite of security updates is listed, or any other one.
func hasSuite(l debian.Listed, security bool) bool {
	return slices.ContainsFunc(l.Suites, func(s string) bool { return strings.HasSuffix(s, "-security") == security })
}

// first is the first address that has the source; a single one is told apart when it is read.
func first(addrs []string, src debian.Source, check func(debian.Source) error) (string, error) {
	var errs error
	for _, src.URL = range addrs {
		if len(addrs) == 1 {
			return src.URL, nil
		}
		err := check(src)
		if err == nil {
			return src.URL, nil
		}
		if errs != nil {
			err = fmt.Errorf("%w; %w", errs, err)
		}
		errs = err
	}
	if errs != nil {
		errs = fmt.Errorf("no mirror that this host's apt lists will do, set base.mirror: %w", errs)
	}
	return "", errs
}

// replaceElement puts another element into an address's path, if it has the old one.
// Every Debian mirror lies at …/debian, its security updates at …/debian-security, and
// snapshots have a date behind that; Ubuntu's lie at …/ubuntu, both.
func replaceElement(addr, old, with string) (string, bool) {
	u, err := url.Parse(addr)
	if err != nil {
		return "", false
	}
	elements := strings.Split(u.Path, "/")
	i := slices.Index(elements, old)
	if i < 0 {
		return "", false
	}
	elements[i] = with
	u.Path = strings.Join(elements, "/")
	return u.String(), true
}

// readRepository reads one of an operator's own, whose keyring alone vouches for it.
func readRepository(line string) (debian.Source, error) {
	l, err := debian.ParseLine(line)
	if err != nil {
		return debian.Source{}, fmt.Errorf("base.repositories: %w", err)
	}
	keys, err := debian.ReadKeys(l.SignedBy)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return debian.Source{}, fault.New(fault.Spec, "base.repositories: %s: %w", l.URL, err)
	}
	return debian.Source{URL: l.URL, Suite: l.Suites[0], Components: l.Components, Keys: keys}, err
}
