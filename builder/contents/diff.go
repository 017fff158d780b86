package contents

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Change is one difference. Before or After is empty where there was, or is, none.
type Change struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Diff is what two images differ in, by kind; each is sorted.
type Diff struct {
	Image    []Change `json:"image"`    // Kubernetes, kernel, operating system, command line, size
	Packages []Change `json:"packages"` // name: versions
	Programs []Change `json:"programs"` // executables beside packages: bytes
	Units    []Change `json:"units"`
	Sysctls  []Change `json:"sysctls"`
	Ports    []Change `json:"ports"`
	Files    []Change `json:"files"` // all others: what they are
}

// Groups are the kinds with their names, in the order in which they are shown.
func (d *Diff) Groups() []struct {
	Name    string
	Changes []Change
} {
	return []struct {
		Name    string
		Changes []Change
	}{{"image", d.Image}, {"packages", d.Packages}, {"programs", d.Programs}, {"units", d.Units}, {"sysctls", d.Sysctls}, {"ports", d.Ports}, {"files", d.Files}}
}

// Empty says whether there is no difference.
func (d *Diff) Empty() bool {
	for _, g := range d.Groups() {
		if len(g.Changes) > 0 {
			return false
		}
	}
	return true
}

// Compare reads two images, and their files where those are as large as each other.
func Compare(ctx context.Context, before, after string) (*Diff, error) {
	d := &Diff{}
	var a, b *Contents
	var inner error // the second image's, which the reader of the first would take for its own
	err := with(ctx, before, func(old *Contents, oldRoot fs.FS) error {
		inner = with(ctx, after, func(now *Contents, nowRoot fs.FS) error {
			a, b = old, now
			return d.files(ctx, old, now, oldRoot, nowRoot)
		})
		return inner
	})
	if inner != nil {
		return nil, inner
	}
	if err != nil {
		return nil, err
	}
	d.Image = changes(facts(a), facts(b))
	d.Packages = changes(a.Packages, b.Packages)
	d.Sysctls = changes(a.Sysctls, b.Sysctls)
	d.Ports = changes(set(a.Ports), set(b.Ports))
	return d, nil
}

// facts are what an image says of itself.
func facts(c *Contents) map[string]string {
	out := map[string]string{"kernel": c.Report.Kernel, "command line": withoutHash(c.Report.Cmdline), "operating system": c.Report.OS["PRETTY_NAME"],
		"version": c.Report.OS["IMAGE_VERSION"], "role": c.Report.OS["IMAGE_ID"]}
	var total int64
	for _, p := range c.Parts {
		total += p.Bytes
		if p.Kind == Images {
			out["container images"] = size(p.Bytes)
		}
	}
	out["files"] = size(total)
	return out
}

// withoutHash leaves out what differs whenever anything does.
func withoutHash(cmdline string) string {
	var words []string
	for word := range strings.FieldsSeq(cmdline) {
		if !strings.HasPrefix(word, "roothash=") {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

func set(lines []string) map[string]string {
	out := map[string]string{}
	for _, line := range lines {
		out[line] = "open"
	}
	return out
}

// changes are the keys whose values differ.
func changes(before, after map[string]string) (out []Change) {
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if before[key] != after[key] {
			out = append(out, Change{key, before[key], after[key]})
		}
	}
	return out
}

var unitForm = regexp.MustCompile(`^(usr/lib|etc)/systemd/system/.`)

// files compares what lies where. What a package or a container image brought in another
// version is told by that alone.
func (d *Diff) files(ctx context.Context, a, b *Contents, aRoot, bRoot fs.FS) error {
	all := maps.Clone(a.Entries)
	maps.Copy(all, b.Entries)
	for _, p := range slices.Sorted(maps.Keys(all)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		x, inA := a.Entries[p]
		y, inB := b.Entries[p]
		if inA && inB {
			same, err := equal(x, y, aRoot, bRoot)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		c := Change{What: "/" + p}
		if inA {
			c.Before = describe(x)
		}
		if inB {
			c.After = describe(y)
		}
		if c.Before == c.After {
			c.After += ", another content"
		}
		owner := cmp.Or(y.Owner, x.Owner)
		switch {
		case owner.Kind == Images, owner.Kind == Package && moved(a, b, owner), strings.HasPrefix(p, dpkgDir):
		case owner.Kind == Package && (inA != inB) && cmp.Or(x.Mode, y.Mode).IsDir(): // what was in it says it all
		case unitForm.MatchString(p):
			d.Units = append(d.Units, c)
		case owner.Kind == Program:
			d.Programs = append(d.Programs, c)
		default:
			d.Files = append(d.Files, c)
		}
	}
	return nil
}

// moved says whether a package comes or goes, or has another version.
func moved(a, b *Contents, owner *Part) bool { return a.Packages[owner.Name] != b.Packages[owner.Name] }

func describe(e Entry) string {
	switch {
	case e.Mode&fs.ModeSymlink != 0:
		return "→ " + e.Link
	case e.Mode.IsDir():
		return e.Mode.String()
	}
	return fmt.Sprintf("%s %s", e.Mode, size(e.Size))
}

// equal says whether two entries are the same, contents too.
func equal(x, y Entry, xRoot, yRoot fs.FS) (bool, error) {
	if x.Mode != y.Mode || x.Size != y.Size || x.Link != y.Link || !x.Mode.IsRegular() {
		return x.Mode == y.Mode && x.Size == y.Size && x.Link == y.Link, nil
	}
	f, err1 := xRoot.Open(x.Path)
	g, err2 := yRoot.Open(y.Path)
	if err := errors.Join(err1, err2); err != nil {
		return false, err
	}
	defer f.Close() //nolint:errcheck // read only
	defer g.Close() //nolint:errcheck // read only
	a, b := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, err1 := io.ReadFull(f, a)
		m, err2 := io.ReadFull(g, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if end(err1) && end(err2) {
			return true, nil
		}
		if err := errors.Join(err1, err2); err != nil {
			return false, fmt.Errorf("reading %s: %w", x.Path, err)
		}
	}
}

func end(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// size is a number of bytes for people, in binary units.
func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
