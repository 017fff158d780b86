package source

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/archivetest"
	"github.com/imgbuild/imgbuild/internal/debian"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/repro"
)

func writeTo(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSources: which archives are read, by what the spec and the host's apt say.
func TestSources(t *testing.T) {
	const third = "deb https://third.example/debian bookworm stable # not Debian's\ndeb [arch=amd64] cdrom:[x]/ trixie main\ndeb-src http://src.example/debian trixie main\n"
	for name, c := range map[string]struct {
		base DebianBase
		apt  map[string]string
		want []string // "!" and a part of the error
	}{
		"the host's, one-line": {apt: map[string]string{"sources.list": third + "deb [signed-by=/k] http://mirror.example/debian/ bookworm main contrib\ndeb http://sec.example/debian-security bookworm-security main\n"},
			want: []string{"trixie of http://mirror.example/debian/", "trixie-updates of http://mirror.example/debian/?", "trixie-security of http://sec.example/debian-security"}},
		"the host's, deb822": {apt: map[string]string{"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\nTypes: deb\nEnabled: no\nURIs: http://off.example/debian-security\nSuites: x\nComponents: main\n"},
			want: []string{"trixie of http://mirror.example/debian", "trixie-updates of http://mirror.example/debian?", "trixie-security of http://mirror.example/debian-security?"}},
		"the spec's": {base: DebianBase{Mirror: "http://own.example/x/debian"}, apt: map[string]string{"sources.list": "deb http://mirror.example/debian bookworm main\n"},
			want: []string{"trixie of http://own.example/x/debian", "trixie-updates of http://own.example/x/debian?", "trixie-security of http://own.example/x/debian-security?"}},
		"a snapshot": {base: DebianBase{Mirror: "http://own.example/archive/debian/20260131T120000Z"},
			want: []string{"trixie of http://own.example/archive/debian/20260131T120000Z", "trixie-updates of http://own.example/archive/debian/20260131T120000Z?", "trixie-security of http://own.example/archive/debian-security/20260131T120000Z?"}},
		"another layout":    {base: DebianBase{Mirror: "http://own.example/apt"}, want: []string{"trixie of http://own.example/apt", "trixie-updates of http://own.example/apt?"}},
		"only a stranger's": {apt: map[string]string{"sources.list": third, "sources.list.d/a.list.bak": "deb http://mirror.example/debian bookworm main\n"}, want: []string{"!no mirror of Debian is known"}},
		"a mirror with a password": {apt: map[string]string{"sources.list": "deb http://me:secret@mirror.example/debian bookworm main\n", "sources.list.d/a.sources": "Types: deb\nURIs: https://mirror.example/debian?key=secret http://me@mirror.example/debian-security http://open.example/debian\nSuites: x\nComponents: main\n"},
			want: []string{"trixie of http://open.example/debian", "trixie-updates of http://open.example/debian?", "trixie-security of http://open.example/debian-security?"}},
		"only such ones":         {apt: map[string]string{"sources.list": "deb http://me:secret@mirror.example/debian bookworm main\n"}, want: []string{"!no mirror of Debian is known"}},
		"nothing":                {want: []string{"!set base.mirror"}},
		"a file that is damaged": {apt: map[string]string{"sources.list.d/a.sources": "Types deb\n"}, want: []string{"!a.sources: line 1 is no field; set base.mirror"}},
		"no keyring":             {base: DebianBase{Mirror: "http://own.example/debian", Keyring: "/no/such/file"}, want: []string{"!reading a keyring"}},
		"a repository without one": {base: DebianBase{Mirror: "http://own.example/debian", Repositories: []string{"deb [signed-by=/no/such/file] http://own.example/own x main"}},
			want: []string{"!base.repositories: http://own.example/own: reading a keyring"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.base
			b.Name, b.Suite, b.apt, b.hostKeys = "debian-trixie", "trixie", t.TempDir(), "/no/such/file"
			for file, text := range c.apt {
				writeTo(t, filepath.Join(b.apt, file), text)
			}
			sources, err := b.sources(func(s debian.Source) error {
				if strings.Contains(s.URL, "stranger") {
					return errors.New(s.URL + " is signed by a stranger")
				}
				return nil
			})
			var got []string
			for _, s := range sources {
				got = append(got, s.String()+map[bool]string{true: "?"}[s.Optional])
			}
			if err != nil {
				if want, bad := strings.CutPrefix(c.want[0], "!"); !bad || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				return
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestUbuntuSources: Ubuntu's archive and its security updates have one folder, and the suites that are listed tell them apart.
func TestUbuntuSources(t *testing.T) {
	three := func(mirror, security string) []string {
		return []string{"noble of " + mirror + " [main universe]", "noble-updates of " + mirror + " [main universe]?", "noble-security of " + security + " [main universe]"}
	}
	for name, c := range map[string]struct {
		mirror string
		apt    map[string]string
		want   []string // "!" and a part of the error
	}{
		"the host's": {apt: map[string]string{"sources.list.d/ubuntu.sources": "Types: deb\nURIs: http://mirror.example/ubuntu/\nSuites: jammy jammy-updates jammy-backports\nComponents: main universe\n\nTypes: deb\nURIs: http://sec.example/ubuntu/\nSuites: jammy-security\nComponents: main universe\n"},
			want: three("http://mirror.example/ubuntu/", "http://sec.example/ubuntu/")},
		"the host's, one mirror": {apt: map[string]string{"sources.list": "deb http://mirror.example/ubuntu noble main\ndeb http://mirror.example/ubuntu noble-security main\n"},
			want: three("http://mirror.example/ubuntu", "http://mirror.example/ubuntu")},
		"no security updates listed": {apt: map[string]string{"sources.list": "deb http://mirror.example/ubuntu noble main\n"},
			want: three("http://mirror.example/ubuntu", "http://mirror.example/ubuntu?")},
		"security updates alone":  {apt: map[string]string{"sources.list": "deb http://sec.example/ubuntu noble-security main\n"}, want: []string{"!no mirror of Ubuntu is known"}},
		"an archive of one's own": {apt: map[string]string{"sources.list": "deb http://ppa.example/stranger/ubuntu noble main\ndeb http://mirror.example/ubuntu noble main\n"}, want: three("http://mirror.example/ubuntu", "http://mirror.example/ubuntu?")},
		"a Debian host":           {apt: map[string]string{"sources.list": "deb http://mirror.example/debian trixie main\n"}, want: []string{"!…/ubuntu, component main); set base.mirror"}},
		"the spec's":              {mirror: "http://own.example/ubuntu", want: three("http://own.example/ubuntu", "http://own.example/ubuntu?")},
	} {
		t.Run(name, func(t *testing.T) {
			b := DebianBase{Name: "ubuntu-noble", Suite: "noble", Mirror: c.mirror, apt: t.TempDir(), hostKeys: "/no/such/file"}
			for file, text := range c.apt {
				writeTo(t, filepath.Join(b.apt, file), text)
			}
			sources, err := b.sources(func(s debian.Source) error {
				if strings.Contains(s.URL, "stranger") {
					return errors.New(s.URL + " is signed by a stranger")
				}
				return nil
			})
			if want, bad := strings.CutPrefix(c.want[0], "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Spec {
					t.Errorf("error %v, want %q", err, want)
				}
				return
			}
			var got []string
			for _, s := range sources {
				got = append(got, fmt.Sprintf("%s %v", s, s.Components)+map[bool]string{true: "?"}[s.Optional])
			}
			if last := len(c.want) - 1; strings.Contains(c.want[last], "? ") {
				c.want[last] = strings.Replace(c.want[last], "? ", " ", 1) + "?"
			}
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Error(d, err)
			}
		})
	}
}

// TestArches: a base says for which processors it is.
func TestArches(t *testing.T) {
	opt, _ := options(t)
	opt.Arch = "arm64"
	_, err := New(opt).ResolveBase(t.Context(), lock.Request{Kind: lock.KindBase, Name: "ubuntu-noble", Source: "debian"})
	if err == nil || err.Error() != "the base ubuntu-noble is not for arm64: use amd64" || fault.KindOf(err) != fault.Spec {
		t.Error(err)
	}
}

// TestResolve: from a request to pins, with a repository beside Debian.
func TestResolve(t *testing.T) {
	opt, notes := options(t)
	archive := archivetest.New(t)
	key, ring := archivetest.Key(t)
	ownKey, ownRing := archivetest.Key(t)
	keyring, ownKeyring := filepath.Join(t.TempDir(), "debian.pgp"), filepath.Join(t.TempDir(), "own.pgp")
	writeTo(t, keyring, string(ring))
	writeTo(t, ownKeyring, string(ownRing))
	when := repro.Now().Add(-time.Hour)
	archive.Publish(t, archivetest.Suite{Name: "trixie", Date: when, Key: key, Packages: "Package: base\nEssential: yes\n\nPackage: tool\nVersion: 1:2~b+1\nFilename: pool/tool_2~b+1_amd64.deb\n"})
	archive.Publish(t, archivetest.Suite{Name: "stable", Date: when, Key: ownKey, Packages: "Package: own\nDepends: tool\n"}, "own")
	req := lock.Request{Kind: lock.KindBase, Name: "debian-trixie", Source: "debian", Args: []string{"mirror=" + archive.URL, "keyring=" + keyring,
		"repository=deb [signed-by=" + ownKeyring + "] " + strings.TrimSuffix(archive.URL, "debian") + "own stable main", "own"}}
	pins, err := New(opt).ResolveBase(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pins {
		if p.Request != "debian-trixie" || p.Kind != lock.KindBase || p.Source != "debian" || p.Size != 1000 || len(p.Digest) != 71 || p.Arch != "amd64" {
			t.Errorf("%+v", p)
		}
		got = append(got, p.Name+" "+p.Version+" "+strings.TrimPrefix(p.URL, strings.TrimSuffix(archive.URL, "/debian")))
	}
	want := []string{"base 1 /debian/pool/base.deb", "own 1 /own/pool/own.deb", "tool 1:2~b+1 /debian/pool/tool_2%7eb%2b1_amd64.deb"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if done, total, _ := strings.Cut(notes.steps["package indices"], " of "); done == "" || done+" B" != total {
		t.Errorf("of the indices was heard: %s", notes.steps)
	}
	if !strings.Contains(notes.String(), "trixie-security of "+archive.URL+"-security is not there") {
		t.Errorf("nothing tells that there are no security updates: %s", notes)
	}
	for name, c := range map[string]struct {
		args []string
		kind fault.Kind
		is   error
	}{
		"its keys are Debian's own":     {[]string{"mirror=" + archive.URL}, fault.Internal, debian.ErrSignature},
		"a repository signs for Debian": {[]string{"mirror=" + archive.URL, "keyring=" + ownKeyring}, fault.Internal, debian.ErrSignature},
		"no such package":               {[]string{"mirror=" + archive.URL, "keyring=" + keyring, "nothing"}, fault.Spec, debian.ErrUnsolvable},
		"no such mirror":                {[]string{"mirror=" + archive.URL + "/x"}, fault.Internal, fetch.ErrNotFound},
	} {
		req.Args = c.args
		if _, err := New(opt).ResolveBase(t.Context(), req); !errors.Is(err, c.is) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: %s: %v", name, fault.KindOf(err), err)
		}
	}
}

// TestStrangersMirror: of the archives that the host lists, the one that is signed for Debian is read.
func TestStrangersMirror(t *testing.T) {
	opt, notes := options(t)
	archive, stranger := archivetest.New(t), archivetest.New(t)
	key, ring := archivetest.Key(t)
	other, _ := archivetest.Key(t)
	b := DebianBase{Name: "debian-trixie", Suite: "trixie", Arch: "amd64", Keyring: filepath.Join(t.TempDir(), "debian.pgp"), apt: t.TempDir()}
	writeTo(t, b.Keyring, string(ring))
	writeTo(t, filepath.Join(b.apt, "sources.list"), "deb [signed-by=/k] "+stranger.URL+" trixie main\ndeb "+archive.URL+" trixie main\n")
	when := repro.Now().Add(-time.Hour)
	publish := func(at *archivetest.Archive, suite string, key *openpgp.Entity, packages string) {
		at.Publish(t, archivetest.Suite{Name: suite, Date: when, Key: key, Packages: packages})
	}
	publish(stranger, "trixie", other, "Package: evil\nEssential: yes\n")
	publish(archive, "trixie", key, "Package: base\nEssential: yes\n")
	pins, err := b.Resolve(t.Context(), opt)
	if err != nil || len(pins) != 1 || pins[0].URL != archive.URL+"/pool/base.deb" || strings.Contains(notes.String(), stranger.URL) {
		t.Errorf("%v, %v, %s", pins, err, notes)
	}
	archive.Remove("InRelease")
	publish(archive, "sid", key, "Package: base\nEssential: yes\n")
	_, err = b.Resolve(t.Context(), opt)
	for _, want := range []string{"trixie of " + stranger.URL + ": the signature does not hold", "trixie of " + archive.URL + ": ", "set base.mirror"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestKeyring: the keys on board are the distribution's, and readable.
func TestKeyring(t *testing.T) {
	b := DebianBase{hostKeys: "/no/such/file"}
	for _, b.Name = range images.Names() {
		if _, err := b.keys(); err != nil {
			t.Error(err)
		}
	}
	if b.hostKeys = filepath.Join(t.TempDir(), "damaged"); true {
		writeTo(t, b.hostKeys, "damaged")
	}
	if _, err := b.keys(); err == nil || !strings.Contains(err.Error(), "no keyring of OpenPGP public keys") {
		t.Error(err)
	}
}
