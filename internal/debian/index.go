package debian

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/therootcompany/xz"
	"pault.ag/go/debian/version"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// largestIndex bounds an index whose unpacked size the Release does not say.
const largestIndex = 1 << 30

// largestDictionary is that of xz -9.
const largestDictionary = 64 << 20

// ErrTooLarge says that an index unpacks to more than it may.
var ErrTooLarge = errors.New("unpacks to more than it may")

// unpack is what r holds in one of the packings, at most limit bytes: one more is ErrTooLarge.
func unpack(r io.Reader, packing string, limit int64) (io.Reader, error) {
	var err error
	switch packing {
	case ".xz":
		r, err = xz.NewReader(r, largestDictionary)
	case ".gz":
		r, err = gzip.NewReader(r)
	}
	if err != nil {
		return nil, err
	}
	return &capped{r, limit}, nil
}

type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}

var indexFields = []string{"Package", "Version", "Architecture", "Filename", "Size", "SHA256", "Essential", "Important", "Protected", "Multi-Arch",
	"Priority", "Pre-Depends", "Depends", "Conflicts", "Breaks", "Provides"}

// priorities are those of Debian policy 2.5, the most important first.
var priorities = []string{"required", "important", "standard", "optional", "extra"}

// readPackages reads a Packages index of a source and calls add for every package of it.
func readPackages(r io.Reader, src Source, add func(*Package)) error {
	return deb.EachParagraph(r, indexFields, func(p deb.Paragraph) error {
		pkg, err := readPackage(p, src)
		if err == nil {
			add(pkg)
		}
		return err
	})
}

// readPackage judges one entry: all of it ends up in a lock or on a command line.
func readPackage(p deb.Paragraph, src Source) (*Package, error) {
	name := p.Get("Package")
	if !packageName.MatchString(name) {
		return nil, fmt.Errorf("%q is no package's name", name)
	}
	if _, err := version.Parse(p.Get("Version")); err != nil {
		return nil, fmt.Errorf("package %s: %q: %w", name, p.Get("Version"), err)
	}
	file := path.Clean(p.Get("Filename"))
	if !fs.ValidPath(file) || file == "." || strings.ContainsFunc(file, unprintable) || slices.Contains(strings.Split(p.Get("Filename"), "/"), "..") {
		return nil, fmt.Errorf("package %s: Filename %q is no path in the archive", name, p.Get("Filename"))
	}
	size, err := strconv.ParseInt(p.Get("Size"), 10, 64)
	if err != nil || size <= 0 {
		return nil, fmt.Errorf("package %s: %q is no Size", name, p.Get("Size"))
	}
	if !isSHA256(p.Get("SHA256")) {
		return nil, fmt.Errorf("package %s has no SHA256", name)
	}
	return &Package{Name: name, Version: p.Get("Version"), Arch: p.Get("Architecture"), URL: src.at(file), Size: size, SHA256: p.Get("SHA256"),
		essential: p.Get("Essential") == "yes", important: p.Get("Important") == "yes" || p.Get("Protected") == "yes",
		multiArch: p.Get("Multi-Arch"), priority: rank(p.Get("Priority")),
		preDepends: p.Get("Pre-Depends"), depends: p.Get("Depends"), conflicts: p.Get("Conflicts"), breaks: p.Get("Breaks"), provides: p.Get("Provides")}, nil
}

func unprintable(r rune) bool { return r <= ' ' || r > '~' }

func rank(priority string) int {
	if i := slices.Index(priorities, priority); i >= 0 {
		return i
	}
	return len(priorities)
}
