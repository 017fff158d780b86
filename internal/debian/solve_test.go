package debian

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var letter = regexp.MustCompile(`\b[a-z]\b`)

// double writes names of one letter, which no package may have, twice.
func double(text string) string { return letter.ReplaceAllString(text, "$0$0") }

// universe is what a Packages index of those paragraphs gives.
func universe(t testing.TB, text string) *Universe {
	t.Helper()
	text = double(text)
	u := newUniverse("amd64")
	u.sources = []Source{{URL: "http://archive.example/debian", Suite: "trixie"}}
	var full strings.Builder
	for p := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if !strings.Contains(p, "\nVersion:") {
			p += "\nVersion: 1"
		}
		if !strings.Contains(p, "\nArchitecture:") {
			p += "\nArchitecture: amd64"
		}
		fmt.Fprintf(&full, "%s\nFilename: pool/x.deb\nSize: 1\nSHA256: %064d\n\n", p, 0)
	}
	if err := readPackages(strings.NewReader(full.String()), u.sources[0], u.add); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestSolve: what is chosen, and what an error says where nothing can be.
func TestSolve(t *testing.T) {
	for name, c := range map[string]struct{ packages, ask, want string }{
		"essential alone":             {"Package: a\nEssential: yes\n\nPackage: b", "", "a"},
		"Pre-Depends and Depends":     {"Package: a\nPre-Depends: b\nDepends: c\n\nPackage: b\n\nPackage: c", "a", "a b c"},
		"no Recommends":               {"Package: a\nRecommends: b\nSuggests: b\n\nPackage: b", "a", "a"},
		"a loop":                      {"Package: a\nDepends: b\n\nPackage: b\nDepends: c\n\nPackage: c\nPre-Depends: a", "a", "a b c"},
		"a loop of one":               {"Package: a\nDepends: a", "a", "a"},
		"first alternative":           {"Package: a\nDepends: b | c\n\nPackage: b\n\nPackage: c", "a", "a b"},
		"alternative that is there":   {"Package: a\nDepends: b | c\n\nPackage: b\n\nPackage: c", "a c", "a c"},
		"second alternative":          {"Package: a\nDepends: b (>= 2) | c\n\nPackage: b\n\nPackage: c", "a", "a c"},
		"alternative without hope":    {"Package: a\nDepends: b | c\n\nPackage: b\nDepends: x\n\nPackage: c", "a", "a c"},
		"highest version":             {"Package: a\nVersion: 1.9\n\nPackage: a\nVersion: 1.10\n\nPackage: a\nVersion: 1.10~rc1", "a", "a=1.10"},
		"epoch":                       {"Package: a\nVersion: 9\n\nPackage: a\nVersion: 1:1", "a", "a=1:1"},
		"virtual":                     {"Package: a\nDepends: mta\n\nPackage: b\nProvides: mta", "a", "a b"},
		"virtual, by priority":        {"Package: a\nDepends: awk\n\nPackage: gawk\nProvides: awk\nPriority: optional\n\nPackage: mawk\nProvides: awk\nPriority: required\n\nPackage: xawk\nProvides: awk\nPriority: optional", "a", "a mawk"},
		"real before virtual":         {"Package: a\nDepends: b\n\nPackage: c\nProvides: b\nEssential: no\nPriority: required\n\nPackage: b\nPriority: extra", "a", "a b"},
		"virtual with a version":      {"Package: a\nDepends: b (= 2)\n\nPackage: c\nProvides: b\n\nPackage: d\nProvides: b (= 2)\n\nPackage: e\nProvides: b (= 3)", "a", "a d"},
		"asked for by a virtual name": {"Package: c\nProvides: b", "b", "c"},
		"any, allowed":                {"Package: a\nDepends: p:any (>= 1)\n\nPackage: p\nMulti-Arch: allowed", "a", "a p"},
		"own architecture":            {"Package: a\nDepends: p:amd64\n\nPackage: p", "a", "a p"},
		"other architecture's needs":  {"Package: a\nDepends: x [arm64], p [amd64], q [!amd64]\n\nPackage: p", "a", "a p"},
		"for all architectures":       {"Package: a\nArchitecture: all", "a", "a"},
		"conflict, another way":       {"Package: a\nDepends: b | c\n\nPackage: b\nConflicts: d\n\nPackage: c\n\nPackage: d", "a d", "a c d"},
		"conflict, seen later":        {"Package: a\nDepends: b | c, d\n\nPackage: b\n\nPackage: c\n\nPackage: d\nConflicts: b", "a", "a c d"},
		"conflict, brought in":        {"Package: a\nDepends: b | c, d\n\nPackage: b\nDepends: b2\n\nPackage: b2\n\nPackage: c\n\nPackage: d\nBreaks: b2", "a", "a c d"},
		"conflict with an old one":    {"Package: a\nDepends: b\nBreaks: b (<< 1)\n\nPackage: b", "a", "a b"},
		"conflict with itself":        {"Package: a\nProvides: mta\nConflicts: mta", "a", "a"},

		"unknown":                 {"Package: a", "b", `! trixie has no package "b" for amd64`},
		"other architecture":      {"Package: a\nArchitecture: arm64", "a", `! trixie has no package "a" for amd64`},
		"many that provide":       {"Package: c\nProvides: b\n\nPackage: d\nProvides: b", "b", `! "b" is no package; name one of those that provide it: d, c`},
		"nothing has":             {"Package: a\nDepends: b", "a", "! a depends on b, which nothing has (no package has that name)"},
		"nothing has the version": {"Package: a\nDepends: b (>= 2)\n\nPackage: b", "a", "! a depends on b (>= 2), which nothing has (the nearest is b 1)"},
		"deep down": {"Package: a\nPre-Depends: b | b2\n\nPackage: b\nDepends: c\n\nPackage: c\nDepends: d (>= 2)\n\nPackage: d\nVersion: 1-3", "a",
			"! a pre-depends on b | b2, b depends on c, c depends on d (>= 2), which nothing has (the nearest is d 1-3)"},
		"any, not allowed":      {"Package: a\nDepends: p:any\n\nPackage: p", "a", "! a depends on p:any, which nothing has (the nearest is p 1)"},
		"virtual, bare":         {"Package: a\nDepends: b (>= 2)\n\nPackage: c\nProvides: b", "a", "! a depends on b (>= 2), which nothing has (the nearest is b of c)"},
		"candidates only":       {"Package: a\nDepends: b (= 1)\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2", "a", "! a depends on b (= 1), which nothing has (the nearest is b 2, b 1)"},
		"conflict":              {"Package: a\nConflicts: b\n\nPackage: b", "a b", "! a conflicts with b, and b 1 is there"},
		"conflict, by a third":  {"Package: a\nDepends: b\n\nPackage: b\n\nPackage: c\nDepends: d\n\nPackage: d\nBreaks: b (<< 2)", "a c", "! c depends on d, d breaks b (<< 2), and b 1 is there (a needs it)"},
		"conflict with virtual": {"Package: a\nProvides: mta\nConflicts: mta\n\nPackage: b\nProvides: mta", "a b", "! a conflicts with mta, and b 1 is there"},
		"relation unreadable":   {"Package: a\nDepends: b (>= )\n\nPackage: b", "a", `! package a 1: Depends: `},
	} {
		t.Run(name, func(t *testing.T) {
			packages, err := universe(t, c.packages).Solve(strings.Fields(double(c.ask)))
			if want, bad := strings.CutPrefix(double(c.want), "! "); bad {
				if !errors.Is(err, ErrUnsolvable) || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v; want one with %q", err, want)
				}
				return
			}
			var got []string
			for _, p := range packages {
				if strings.Contains(c.want, "=") {
					got = append(got, p.Name+"="+p.Version)
				} else {
					got = append(got, p.Name)
				}
			}
			if err != nil || strings.Join(got, " ") != double(c.want) {
				t.Errorf("%s, %v; want %s", strings.Join(got, " "), err, c.want)
			}
		})
	}
}

// TestSolveEnds: alternatives that all fail late are no endless search.
func TestSolveEnds(t *testing.T) {
	var text strings.Builder
	const depth = 60
	for i := range depth {
		for _, side := range "ab" {
			fmt.Fprintf(&text, "Package: %c%d\nDepends: a%d | b%d\n\n", side, i, i+1, i+1)
		}
	}
	fmt.Fprintf(&text, "Package: a%d\nConflicts: top\n\nPackage: b%d\nConflicts: top\n\nPackage: top\nDepends: a0", depth, depth)
	if _, err := universe(t, text.String()).Solve([]string{"top"}); !errors.Is(err, ErrUnsolvable) {
		t.Error(err)
	}
}

func FuzzPackages(f *testing.F) {
	f.Add("Package: a\nVersion: 1\nArchitecture: amd64\nDepends: b:any (>= 1) [amd64] | c <!x>\nProvides: d (= 2)\nFilename: pool/a.deb\nSize: 1\nSHA256: "+strings.Repeat("0", 64)+"\n", "a")
	f.Add("Package: ab\nVersion: 1:1-1~\nArchitecture: all\nConflicts: ab, c\nFilename: ./a.deb\nSize: 1\nSHA256: "+strings.Repeat("0", 64)+"\n", "ab")
	f.Fuzz(func(t *testing.T, text, name string) {
		u := newUniverse("amd64")
		err := readPackages(strings.NewReader(text), Source{URL: "http://archive.example/debian"}, func(p *Package) {
			if strings.Contains(p.URL, "/../") || strings.Contains(p.Name, "/") {
				t.Errorf("%+v", p)
			}
			u.add(p)
		})
		if err == nil {
			_, _ = u.Solve([]string{name})
		}
	})
}

func FuzzRelease(f *testing.F) {
	f.Add([]byte("Suite: a\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n " + strings.Repeat("0", 64) + " 1 main/binary-amd64/Packages.xz\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := parseRelease(text); err == nil && (r.date.IsZero() || len(r.files) == 0) {
			t.Errorf("%+v", r)
		}
	})
}

func FuzzListed(f *testing.F) {
	f.Add("deb [arch=amd64 signed-by=/k] http://a.example/debian trixie main # x\n")
	f.Add("Types: deb\nURIs: http://a.example/debian\nSuites: trixie\nComponents: main\n")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = parseLines([]byte(text))
		_, _ = parseStanzas([]byte(text))
	})
}

// TestRelationOfManyParts: what the library panics at is an error.
func TestRelationOfManyParts(t *testing.T) {
	u := newUniverse("amd64")
	if _, err := u.relations(&Package{Name: "p"}, "Depends", "a:b-c-d-e-f"); err == nil {
		t.Error("it is taken")
	}
}
