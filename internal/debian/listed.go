package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// Listed is one archive that a host's apt is told of.
type Listed struct {
	File       string // where it says so
	URL        string
	Suites     []string
	Components []string
	SignedBy   string // as it stands there: a file, or empty
}

// sourcesFile is which names apt reads (sources.list(5)).
var sourcesFile = regexp.MustCompile(`^[A-Za-z0-9_.-]+\.(list|sources)$`)

// ReadListed reads what apt's configuration folder (/etc/apt) lists for binary packages, in
// apt's order. Nothing there is no error; a file that cannot be read is.
func ReadListed(dir string) ([]Listed, error) {
	files := []string{filepath.Join(dir, "sources.list")}
	entries, err := os.ReadDir(filepath.Join(dir, "sources.list.d")) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if sourcesFile.MatchString(e.Name()) {
			files = append(files, filepath.Join(dir, "sources.list.d", e.Name()))
		}
	}
	var out []Listed
	for _, file := range files {
		text, err := os.ReadFile(file) // #nosec G304 -- the caller's folder
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		read := parseLines
		if strings.HasSuffix(file, ".sources") {
			read = parseStanzas
		}
		listed, err := read(text)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
		for _, l := range listed {
			l.File = file
			out = append(out, l)
		}
	}
	return out, nil
}

// parseLines reads a sources.list. A line that says nothing of use is passed over.
func parseLines(text []byte) (out []Listed, err error) {
	for line := range strings.Lines(string(text)) {
		if l, err := ParseLine(line); err == nil {
			out = append(out, l)
		}
	}
	return out, nil
}

// ParseLine reads the one-line style: deb [options] URL suite components.
func ParseLine(line string) (Listed, error) {
	text, _, _ := strings.Cut(line, "#")
	options := ""
	if before, rest, ok := strings.Cut(text, "["); ok {
		var after string
		options, after, _ = strings.Cut(rest, "]")
		text = before + " " + after
	}
	words := strings.Fields(text)
	if len(words) < 4 || words[0] != "deb" {
		return Listed{}, fmt.Errorf("%q: want deb [signed-by=FILE] URL suite components", strings.TrimSpace(line))
	}
	l := Listed{URL: words[1], Suites: words[2:3], Components: words[3:]}
	for _, option := range strings.Fields(options) {
		if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "signed-by") {
			l.SignedBy = value
		}
	}
	return l, nil
}

// parseStanzas reads the deb822 style.
func parseStanzas(text []byte) (out []Listed, err error) {
	err = deb.EachParagraph(bytes.NewReader(text), []string{"Types", "URIs", "Suites", "Components", "Enabled"}, func(p deb.Paragraph) error {
		off := []string{"no", "false", "without", "off", "disable", "0"}
		if !slices.Contains(strings.Fields(p.Get("Types")), "deb") || slices.Contains(off, strings.ToLower(p.Get("Enabled"))) {
			return nil
		}
		for _, addr := range strings.Fields(p.Get("URIs")) {
			out = append(out, Listed{URL: addr, Suites: strings.Fields(p.Get("Suites")), Components: strings.Fields(p.Get("Components"))})
		}
		return nil
	})
	return out, err
}
