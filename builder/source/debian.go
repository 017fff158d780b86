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

// DebianBase asks for a set of Debian packages. Mirror is an archive's address;
// empty takes the one that the host's own apt is told of. Keyring is a file whose
// keys alone may sign for Debian; empty takes the catalogue's and the host's.
type DebianBase struct {
	Name         string // the request's name, such as debian-trixie
	Suite        string
	Arch         string // as Go names it
	Mirror       string
	Keyring      string
	Repositories []string // beside Debian, in one-line style: deb [signed-by=FILE] URL suite components
	Packages     []string // beside the essential ones

	apt, hostKeys string // where the host says what it has; empty: where Debian has it
}

// Where a Debian host says which mirror it takes, and whose signatures count.
const (
	aptFolder   = "/etc/apt"
	hostKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

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
// operator's own repositories. Of several that the host knows, check says which is Debian's.
func (b DebianBase) sources(check func(debian.Source) error) ([]debian.Source, error) {
	keys, err := b.keys()
	if err != nil {
		return nil, err
	}
	main := []string{"main"}
	mirror, security := b.Mirror, ""
	if mirror == "" {
		mirrors, securities, err := b.hostMirrors()
		if err != nil {
			return nil, err
		}
		if mirror, err = first(mirrors, debian.Source{Suite: b.Suite, Components: main, Keys: keys}, check); err != nil {
			return nil, err
		}
		if security, err = first(securities, debian.Source{Suite: b.Suite + "-security", Components: main, Keys: keys}, check); err != nil {
			return nil, err
		}
	}
	out := []debian.Source{
		{URL: mirror, Suite: b.Suite, Components: main, Keys: keys},
		{URL: mirror, Suite: b.Suite + "-updates", Components: main, Keys: keys, Optional: true},
	}
	if beside, ok := replaceElement(mirror, "debian", "debian-security"); security == "" && ok {
		out = append(out, debian.Source{URL: beside, Suite: b.Suite + "-security", Components: main, Keys: keys, Optional: true})
	} else if security != "" {
		out = append(out, debian.Source{URL: security, Suite: b.Suite + "-security", Components: main, Keys: keys})
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

// keys are those that may sign for Debian.
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
	host, err := debian.ReadKeys(cmp.Or(b.hostKeys, hostKeyring))
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil
	}
	return keys.With(host), err
}

// hostMirrors are the archives that the host's apt is told of and that could be Debian's, and those that
// could have its security updates. A stranger's may have such an address: signatures tell.
func (b DebianBase) hostMirrors() (mirrors, securities []string, err error) {
	folder := cmp.Or(b.apt, aptFolder)
	listed, err := debian.ReadListed(folder)
	if err != nil {
		return nil, nil, fmt.Errorf("looking for a Debian mirror: %w; set base.mirror", err)
	}
	for _, l := range listed {
		if !slices.Contains(l.Components, "main") || !strings.HasPrefix(l.URL, "http") || strings.ContainsAny(l.URL, "@?") { // a password would get into the lock
			continue
		}
		for element, to := range map[string]*[]string{"debian": &mirrors, "debian-security": &securities} {
			if _, ok := replaceElement(l.URL, element, ""); ok && !slices.Contains(*to, l.URL) {
				*to = append(*to, l.URL)
			}
		}
	}
	if mirrors == nil {
		err = fault.New(fault.Spec, "no Debian mirror is known: %s lists none (http or https, …/debian, component main); set base.mirror to the address of one", folder)
	}
	return mirrors, securities, err
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
// snapshots have a date behind that.
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
