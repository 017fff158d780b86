package debian_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/archivetest"
	"github.com/imgbuild/imgbuild/internal/debian"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/store"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// world is a reader with a store of its own, an archive and the key that signs it.
type world struct {
	*archivetest.Archive
	reader *debian.Archive
	key    *openpgp.Entity
	keys   debian.Keys
	notes  []string
}

// stall is long enough for a busy host to answer.
const stall = 3 * time.Second

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Archive: archivetest.New(t)}
	var ring []byte
	w.key, ring = archivetest.Key(t)
	if w.keys, err = debian.ParseKeys(ring); err != nil {
		t.Fatal(err)
	}
	w.reader = &debian.Archive{Store: s, Arch: "amd64", Now: now,
		Fetch: fetch.New(s, fetch.Options{Retries: -1, Backoff: time.Millisecond, Stall: stall}),
		Note:  func(format string, args ...any) { w.notes = append(w.notes, fmt.Sprintf(format, args...)) }}
	return w
}

// suite is a good one, which the function may spoil.
func (w *world) suite(t *testing.T, change func(*archivetest.Suite)) {
	t.Helper()
	s := archivetest.Suite{Name: "trixie", Date: now.Add(-day), Until: now.Add(6 * day), Key: w.key,
		Packages: "Package: base\nEssential: yes\nDepends: lib (>= 1)\n\nPackage: lib\n\nPackage: tool\nDepends: lib\n"}
	if change != nil {
		change(&s)
	}
	w.Publish(t, s)
}

func (w *world) source() debian.Source {
	return debian.Source{URL: w.URL, Suite: "trixie", Components: []string{"main"}, Keys: w.keys}
}

// solve reads the sources, or the one that there is, and solves.
func (w *world) solve(ctx context.Context, names []string, sources ...debian.Source) (string, error) {
	if sources == nil {
		sources = []debian.Source{w.source()}
	}
	u, err := w.reader.Read(ctx, sources)
	if err != nil {
		return "", err
	}
	packages, err := u.Solve(names)
	var out []string
	for _, p := range packages {
		out = append(out, p.String())
	}
	return strings.Join(out, ", "), err
}

func TestRead(t *testing.T) {
	w := newWorld(t)
	w.suite(t, nil)
	got, err := w.solve(t.Context(), []string{"tool"})
	if err != nil || got != "base 1, lib 1, tool 1" {
		t.Errorf("%s, %v", got, err)
	}
	u, err := w.reader.Read(t.Context(), []debian.Source{w.source()})
	if err != nil {
		t.Fatal(err)
	}
	packages, err := u.Solve(nil)
	if err != nil || len(packages) != 2 || packages[1].URL != w.URL+"/pool/lib.deb" || packages[1].Size != 1000 || len(packages[1].SHA256) != 64 || packages[1].Arch != "amd64" {
		t.Errorf("%+v, %v", packages, err)
	}
}

// bad is what an archive, or somebody between it and us, may do.
type bad struct {
	suite func(*archivetest.Suite)
	spoil func(*world)
	want  string
	is    error
}

// holds wants an error that names the suite and the archive.
func (c bad) holds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.suite(t, c.suite)
	if c.spoil != nil {
		c.spoil(w)
	}
	_, err := w.solve(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) || !strings.HasPrefix(err.Error(), "trixie of "+w.URL+": ") {
		t.Errorf("error %v; want one with %q", err, c.want)
	}
}

func TestBadRelease(t *testing.T) {
	stranger, _ := archivetest.Key(t)
	for name, c := range map[string]bad{
		"not there": {nil, func(w *world) { w.Remove("InRelease") }, "404", fetch.ErrNotFound},
		"changed after it was signed": {nil, func(w *world) {
			w.Change("InRelease", func(b []byte) []byte { return bytes.Replace(b, []byte("Origin: Test"), []byte("Origin: Evil"), 1) })
		}, "invalid signature", debian.ErrSignature},
		"signed by an unknown key": {func(s *archivetest.Suite) { s.Key = stranger }, nil, fmt.Sprintf("it is by key %016X, none of which is in the keyring", stranger.PrimaryKey.KeyId), debian.ErrSignature},
		"not signed":               {nil, func(w *world) { w.Change("InRelease", func([]byte) []byte { return []byte("Suite: trixie\n") }) }, "no clear-signed message", debian.ErrSignature},
		"more than what is signed": {nil, func(w *world) {
			w.Change("InRelease", func(b []byte) []byte { return append([]byte("Suite: evil\n\n"), b...) })
		}, "more than the signed message", debian.ErrSignature},
		"a signature with its end cut off": {nil, func(w *world) { w.Change("InRelease", func(b []byte) []byte { return b[:len(b)-60] }) }, "the signature does not hold", debian.ErrSignature},
		"expired":                          {func(s *archivetest.Suite) { s.Until = now.Add(-time.Hour) }, nil, "valid until 2026-06-01 11:00 UTC, it is 2026-06-01 12:00 UTC; take another mirror", debian.ErrExpired},
		"signed tomorrow":                  {func(s *archivetest.Suite) { s.Date = now.Add(day) }, nil, "it has expired, or is still to come: this host's clock says 2026-06-01 12:00 UTC", debian.ErrSignature},
		"of tomorrow": {func(s *archivetest.Suite) {
			s.Release = func(r string) string { return strings.Replace(r, "Date: Sun, 31 May", "Date: Tue, 02 Jun", 1) }
		}, nil, "its Release is of 2026-06-02 12:00 UTC, which is still to come: this host's clock says 2026-06-01 12:00 UTC", nil},
		"another suite": {func(s *archivetest.Suite) {
			s.Codename = "sid"
			s.Release = func(r string) string { return strings.Replace(r, "Suite: trixie", "Suite: unstable", 1) }
		}, nil, "another suite (Suite: unstable, Codename: sid)", nil},
		"two paragraphs": {func(s *archivetest.Suite) { s.Release = func(r string) string { return r + "\nSuite: trixie\n" } }, nil, "more than one paragraph", nil},
		"a field twice":  {func(s *archivetest.Suite) { s.Release = func(r string) string { return r + "Suite: trixie\n" } }, nil, "Suite stands there twice", nil},
		"no date": {func(s *archivetest.Suite) {
			s.Release = func(r string) string { return strings.Replace(r, "Date:", "X-Date:", 1) }
		}, nil, `Date: "" is no date in UTC`, nil},
	} {
		t.Run(name, c.holds)
	}
}

// TestDetached: what has no InRelease is judged by Release and Release.gpg, as strictly.
func TestDetached(t *testing.T) {
	stranger, _ := archivetest.Key(t)
	binary := func(b []byte) []byte {
		block, err := armor.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(block.Body)
		return out
	}
	for name, spoil := range map[string]func(*world){"armoured": nil, "binary": func(w *world) { w.Change("Release.gpg", binary) }} {
		w := newWorld(t)
		w.suite(t, func(s *archivetest.Suite) { s.Detached = true })
		if spoil != nil {
			spoil(w)
		}
		if got, err := w.solve(t.Context(), []string{"tool"}); err != nil || got != "base 1, lib 1, tool 1" {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		w.suite(t, func(s *archivetest.Suite) { s.Date = now.Add(-2 * day) }) // by InRelease, for a change
		if _, err := w.solve(t.Context(), nil); !errors.Is(err, debian.ErrRollback) {
			t.Errorf("%s, and an older one: %v", name, err)
		}
	}
	for name, c := range map[string]bad{
		"Release is not there": {nil, func(w *world) { w.Remove("Release") }, "InRelease: not found", fetch.ErrNotFound},
		"no signature":         {nil, func(w *world) { w.Remove("Release.gpg") }, "neither InRelease nor Release.gpg", debian.ErrSignature},
		"an empty signature":   {nil, func(w *world) { w.Change("Release.gpg", func([]byte) []byte { return nil }) }, "by keys that it does not name", debian.ErrSignature},
		"no signature at all":  {nil, func(w *world) { w.Change("Release.gpg", func([]byte) []byte { return []byte("<html>") }) }, "the signature does not hold", debian.ErrSignature},
		"a key, not a signature": {nil, func(w *world) {
			w.Change("Release.gpg", func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte("PGP SIGNATURE"), []byte("PGP PUBLIC KEY BLOCK"))
			})
		}, "it is unreadable", debian.ErrSignature},
		"cut off": {nil, func(w *world) { w.Change("Release.gpg", func(b []byte) []byte { return b[:len(b)/2] }) }, "the signature does not hold", debian.ErrSignature},
		"changed after it was signed": {nil, func(w *world) {
			w.Change("/Release", func(b []byte) []byte { return bytes.Replace(b, []byte("Origin: Test"), []byte("Origin: Evil"), 1) })
		}, "invalid signature", debian.ErrSignature},
		"more than what is signed": {nil, func(w *world) { w.Change("/Release", func(b []byte) []byte { return append(b, "X: y\n"...) }) }, "invalid signature", debian.ErrSignature},
		"signed by an unknown key": {func(s *archivetest.Suite) { s.Key = stranger }, nil, fmt.Sprintf("it is by key %016X, none", stranger.PrimaryKey.KeyId), debian.ErrSignature},
		"an InRelease that is bad": {nil, func(w *world) { w.Put("debian/dists/trixie/InRelease", []byte("Suite: trixie\n")) }, "no clear-signed message", debian.ErrSignature},
		"expired":                  {func(s *archivetest.Suite) { s.Until = now.Add(-time.Hour) }, nil, "valid until", debian.ErrExpired},
		"a signature that stalls":  {nil, func(w *world) { w.Stall("Release.gpg") }, "nothing came for 3s", nil},
	} {
		t.Run(name, func(t *testing.T) {
			more := c.suite
			c.suite = func(s *archivetest.Suite) {
				if s.Detached = true; more != nil {
					more(s)
				}
			}
			c.holds(t)
		})
	}
}

func TestBadIndex(t *testing.T) {
	packages := func(text string) func(*archivetest.Suite) {
		return func(s *archivetest.Suite) { s.Packages = text }
	}
	for name, c := range map[string]bad{
		"no such component":    {func(s *archivetest.Suite) { s.Components = []string{"contrib"} }, nil, `it has no component "main"; there is contrib`, nil},
		"no such architecture": {func(s *archivetest.Suite) { s.Arches = []string{"arm64", "riscv64"} }, nil, "it has nothing for amd64; there is arm64, riscv64", nil},
		"an index that is not listed": {func(s *archivetest.Suite) {
			s.Release = func(r string) string { return strings.ReplaceAll(r, "binary-amd64", "binary-i386") }
		}, nil, "its Release lists no main/binary-amd64/Packages", nil},
		"an index that is not there": {nil, func(w *world) { w.Remove("binary-amd64") }, "404", fetch.ErrNotFound},
		"another index": {nil, func(w *world) {
			w.Remove("by-hash")
			w.Change("Packages.xz", func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		}, "not the bytes that were asked for", fetch.ErrMismatch},
		"a shorter index": {nil, func(w *world) { w.Remove("by-hash"); w.Change("Packages.xz", func(b []byte) []byte { return b[:20] }) }, "server offers 20 bytes, want", fetch.ErrMismatch},
		"truncated xz":    {func(s *archivetest.Suite) { s.Index = func(b []byte) []byte { return b[:len(b)-30] } }, nil, "reading main/binary-amd64/Packages.xz: xz: data is truncated or corrupt", nil},
		"no xz":           {func(s *archivetest.Suite) { s.Index = func([]byte) []byte { return []byte("Package: base\n") } }, nil, "reading main/binary-amd64/Packages.xz: xz:", nil},
		"a bomb": {func(s *archivetest.Suite) {
			s.Packages = "Package: base\nDescription: " + strings.Repeat("a", 3<<20) + "\n" // small when packed
			s.Release = func(r string) string { return replaceSize(r, "main/binary-amd64/Packages", 1000) }
		}, nil, "Packages.xz: unpacks to more than it may", debian.ErrTooLarge},
		"a line without end": {packages("Package: base\nDescription: " + strings.Repeat("a", 5<<20) + "\n"), nil, "a line is longer than", nil},
		"unpacked another index": {func(s *archivetest.Suite) {
			s.Release = func(r string) string {
				line, rest, _ := strings.Cut(r[strings.Index(r, "SHA256:\n")+8:], "\n")
				return r[:strings.Index(r, "SHA256:\n")+8] + " " + strings.Repeat("0", 64) + line[65:] + "\n" + rest
			}
		}, nil, "unpacked it has the SHA-256", nil},
		"a name that is a path":        {packages("Package: ../../etc/passwd\nFilename: pool/a.deb\n"), nil, `"../../etc/passwd" is no package's name`, nil},
		"a name that is an option":     {packages("Package: --force\nFilename: pool/a.deb\n"), nil, `"--force" is no package's name`, nil},
		"Filename with ..":             {packages("Package: base\nFilename: pool/../../../etc/passwd\n"), nil, `Filename "pool/../../../etc/passwd" is no path in the archive`, nil},
		"Filename with .. that stays":  {packages("Package: base\nFilename: pool/../a.deb\n"), nil, `Filename "pool/../a.deb" is no path in the archive`, nil},
		"Filename from the root":       {packages("Package: base\nFilename: /etc/passwd\n"), nil, `Filename "/etc/passwd" is no path in the archive`, nil},
		"Filename with a control byte": {packages("Package: base\nFilename: pool/a\x01.deb\n"), nil, "is no path in the archive", nil},
		"a version that is none":       {packages("Package: base\nVersion: 1 2\n"), nil, `package base: "1 2"`, nil},
		"a size below zero":            {packages("Package: base\nSize: -5\n"), nil, `package base: "-5" is no Size`, nil},
		"no digest":                    {packages("Package: base\nSHA256: abc\n"), nil, "package base has no SHA256", nil},
		"what is no index":             {packages("<html>\n"), nil, "line 1 is no field", nil},
		"a mirror that stalls":         {nil, func(w *world) { w.Stall("InRelease") }, "nothing came for 3s", nil},
		"an index that stalls":         {nil, func(w *world) { w.Remove("by-hash"); w.Stall("Packages.xz") }, "nothing came for 3s", nil},
	} {
		t.Run(name, c.holds)
	}
}

// replaceSize has a Release say another size of a file.
func replaceSize(release, file string, size int) string {
	var out strings.Builder
	for line := range strings.Lines(release) {
		if words := strings.Fields(line); len(words) == 3 && words[2] == file {
			line = fmt.Sprintf(" %s %d %s\n", words[0], size, words[2])
		}
		out.WriteString(line)
	}
	return out.String()
}

// TestRollback: what was seen once is not taken back, not even by silence.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.suite(t, nil)
	if _, err := w.solve(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w.suite(t, func(s *archivetest.Suite) { s.Date = now.Add(-2 * day) })
	for _, spelt := range []string{w.URL + "/", strings.Replace(w.URL, "http:", "HTTP:", 1)} {
		src := w.source()
		src.URL = spelt
		if _, err := w.solve(t.Context(), nil, src); !errors.Is(err, debian.ErrRollback) {
			t.Errorf("an older Release of %s: %v", spelt, err)
		}
	}
	_, err := w.solve(t.Context(), nil)
	if want := "got that of 2026-05-30 12:00 UTC, had that of 2026-05-31 12:00 UTC"; !errors.Is(err, debian.ErrRollback) || !strings.Contains(err.Error(), want) {
		t.Errorf("an older Release: %v", err)
	}
	w.Remove("InRelease")
	src := w.source()
	src.Optional = true
	if _, err := w.solve(t.Context(), nil, src); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("an optional suite that was there before: %v", err)
	}
	w.suite(t, func(s *archivetest.Suite) { s.Date = now })
	if _, err := w.solve(t.Context(), nil); err != nil {
		t.Errorf("a newer one: %v", err)
	}
}

// TestOnTheDisk: a mirror in a folder is read as one on the web is.
func TestOnTheDisk(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.suite(t, func(s *archivetest.Suite) {
		s.Packages = "Package: base\nEssential: yes\nFilename: pool/base_1+b_all.deb\n"
	})
	w.Save(t, dir)
	src := w.source()
	src.URL = "file://" + dir + "/debian"
	none := src
	none.Suite, none.Optional = "trixie-updates", true
	u, err := w.reader.Read(t.Context(), []debian.Source{src, none})
	if err != nil {
		t.Fatal(err)
	}
	if packages, err := u.Solve(nil); err != nil || packages[0].URL != src.URL+"/pool/base_1%2bb_all.deb" || len(w.notes) != 1 {
		t.Errorf("%+v, %v, %s", packages, err, w.notes)
	}
}

// TestSnapshot: what a snapshot's address dates is judged by that date.
func TestSnapshot(t *testing.T) {
	w := newWorld(t)
	old := now.Add(-400 * day)
	s := archivetest.Suite{Name: "trixie", Date: old.Add(-day), Until: old.Add(day), Key: w.key, Packages: "Package: base\nEssential: yes\n"}
	src := w.source()
	for stamp, is := range map[string]error{old.Format("20060102T150405Z"): nil, old.Add(2 * day).Format("20060102T150405Z"): debian.ErrExpired, "99990101T000000Z": debian.ErrExpired} {
		w.Publish(t, s, "debian/"+stamp)
		src.URL = w.URL + "/" + stamp
		if _, err := w.solve(t.Context(), nil, src); !errors.Is(err, is) {
			t.Errorf("%s: %v, want %v", stamp, err, is)
		}
	}
}

// TestSources: the highest version of all suites wins, of two equal ones the first
// source's; NotAutomatic suites give only what no other has.
func TestSources(t *testing.T) {
	w := newWorld(t)
	w.suite(t, func(s *archivetest.Suite) {
		s.Packages = "Package: base\nEssential: yes\nVersion: 1\nDepends: only\n\nPackage: same\n"
	})
	publish := func(name, folder, packages string, never bool) debian.Source {
		w.Publish(t, archivetest.Suite{Name: name, Date: now.Add(-day), Key: w.key, Packages: packages, NotAutomatic: never, Components: []string{"updates/main"}}, folder)
		return debian.Source{URL: strings.TrimSuffix(w.URL, "debian") + folder, Suite: name, Components: []string{"main"}, Keys: w.keys}
	}
	security := publish("trixie-security", "debian-security", "Package: base\nEssential: yes\nVersion: 1+deb13u1\nDepends: only\n\nPackage: same\nFilename: other/same.deb\n", false)
	backports := publish("trixie-backports", "debian", "Package: base\nVersion: 9\n\nPackage: only\nVersion: 3\n", true)
	none := debian.Source{URL: w.URL, Suite: "trixie-updates", Components: []string{"main"}, Keys: w.keys, Optional: true}
	sources := []debian.Source{w.source(), none, security, backports}
	got, err := w.solve(t.Context(), []string{"same"}, sources...)
	if err != nil || got != "base 1+deb13u1, only 3, same 1" {
		t.Errorf("%s, %v", got, err)
	}
	if d := cmp.Diff([]string{"trixie-updates of " + w.URL + " is not there: no package is taken from it"}, w.notes); d != "" {
		t.Error(d)
	}
	u, err := w.reader.Read(t.Context(), sources)
	if err != nil {
		t.Fatal(err)
	}
	packages, err := u.Solve([]string{"same"})
	if err != nil || packages[2].URL != w.URL+"/pool/same.deb" {
		t.Errorf("%+v, %v", packages, err)
	}
	none.Optional = false
	if _, err := w.solve(t.Context(), nil, none); !errors.Is(err, fetch.ErrNotFound) {
		t.Error(err)
	}
}

// TestPackings: indices may be xz, gzip or plain; packages for all architectures may
// have an index of their own; without by-hash their names will do.
func TestPackings(t *testing.T) {
	const text = "Package: everywhere\nVersion: 1\nArchitecture: all\nFilename: ./everywhere.deb\nSize: 1\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	for ending, index := range map[string][]byte{"": []byte(text), ".gz": packed.Bytes()} {
		w := newWorld(t)
		w.suite(t, func(s *archivetest.Suite) {
			s.Release = func(r string) string {
				r = strings.Replace(strings.Replace(r, "Architectures: amd64", "Architectures: all amd64", 1), "Acquire-By-Hash: yes\n", "", 1)
				return r + fmt.Sprintf(" %x %d main/binary-all/Packages%s\n", sha256.Sum256(index), len(index), ending)
			}
		})
		w.Remove("by-hash")
		w.Put("debian/dists/trixie/main/binary-all/Packages"+ending, index)
		if got, err := w.solve(t.Context(), []string{"everywhere"}); err != nil || got != "base 1, everywhere 1, lib 1" {
			t.Errorf("%q: %s, %v", ending, got, err)
		}
	}
}

// TestEveryKeyCounts: an archive changes its keys by signing with the old and the new one.
func TestEveryKeyCounts(t *testing.T) {
	w := newWorld(t)
	_, ring := archivetest.Key(t)
	others, err := debian.ParseKeys(ring)
	if err != nil {
		t.Fatal(err)
	}
	w.suite(t, nil)
	src := w.source()
	src.Keys = others.With(w.keys)
	if _, err := w.solve(t.Context(), nil, src); err != nil {
		t.Error(err)
	}
	src.Keys = others
	if _, err := w.solve(t.Context(), nil, src); !errors.Is(err, debian.ErrSignature) {
		t.Error(err)
	}
}

// TestPruned: a cache that was pruned still knows what it has seen.
func TestPruned(t *testing.T) {
	at := archivetest.New(t)
	key, ring := archivetest.Key(t)
	keys, err := debian.ParseKeys(ring)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	archive := debian.Archive{Store: s, Fetch: fetch.New(s, fetch.Options{}), Arch: "amd64", Now: now}
	read := func(age time.Duration) error {
		at.Publish(t, archivetest.Suite{Name: "trixie", Date: now.Add(-age), Key: key, Packages: "Package: a\n"})
		_, err := archive.Read(t.Context(), []debian.Source{{URL: at.URL, Suite: "trixie", Components: []string{"main"}, Keys: keys}})
		return err
	}
	_ = read(time.Hour) // whatever its packages are worth, its Release is good
	if _, err := s.Prune(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := read(48 * time.Hour); err == nil || !strings.Contains(err.Error(), "older") {
		t.Errorf("an older Release after the pruning: %v", err)
	}
}
