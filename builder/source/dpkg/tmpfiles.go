package dpkg

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// tmpfiles does what a file of tmpfiles.d(5) says of folders, files and links that last.
// What is made anew at every boot, below /run, /tmp and the kernel's own, is left to that boot, and
// so is what a credential says.
func (r *root) tmpfiles(text string) error {
	for line := range strings.Lines(text) {
		w := quotedWords(strings.TrimSpace(line))
		if len(w) < 2 || strings.HasPrefix(w[0], "#") || strings.ContainsAny(w[0], "!^") || !lasting(w[1]) {
			continue
		}
		for len(w) < 7 {
			w = append(w, "-")
		}
		if strings.ContainsAny(w[1], "*?[") || strings.Contains(strings.ReplaceAll(w[1], "%%", ""), "%") {
			continue // globs change what is there; specifiers are known at boot only
		}
		if err := r.tmpfile(w); err != nil {
			return fmt.Errorf("tmpfiles.d line %q: %w", strings.TrimSpace(line), err)
		}
	}
	return nil
}

// lasting says whether a path is more than a boot's.
func lasting(p string) bool {
	for _, fleeting := range []string{"/run", "/tmp", "/dev", "/proc", "/sys", "/var/run", "/var/tmp/", "/home"} {
		if p == fleeting || strings.HasPrefix(p, strings.TrimSuffix(fleeting, "/")+"/") {
			return false
		}
	}
	return true
}

func (r *root) tmpfile(w []string) error {
	f := File{Path: w[1]}
	for to, from := range map[*string]string{&f.Mode: strings.TrimLeft(w[2], ":~"), &f.User: w[3], &f.Group: w[4]} {
		if from != "-" {
			*to = strings.TrimLeft(from, ":")
		}
	}
	argument := strings.Join(w[6:], " ")
	switch kind := strings.TrimRight(w[0], "-=~^$"); kind {
	case "d", "D", "v", "q", "Q":
		return r.make(f, fs.ModeDir|0o755, "")
	case "f":
		if argument == "-" {
			argument = ""
		}
		return r.make(f, 0o644, argument)
	case "L", "L?", "L+":
		return r.tmplink(f.Path, argument, kind)
	case "z", "Z", "m":
		if _, _, err := r.Resolve(f.Path); err != nil {
			return nil
		}
		return r.own(f)
	case "r", "R", "x", "X", "e", "h", "H", "a", "A", "a+", "A+", "C", "C+", "w", "w+", "t", "T", "c", "c+", "b", "b+", "p", "p+":
		return nil // of a running system, of attributes that the image has not, or of a whole folder from /usr/share/factory
	}
	return fmt.Errorf("type %q is unknown", w[0])
}

// tmplink makes a link where nothing is; without a target that is the same path below /usr/share/factory.
func (r *root) tmplink(at, target, kind string) error {
	if target == "-" || target == "" {
		target = path.Join("../usr/share/factory", at)
	}
	real, err := r.inside(at)
	if err != nil {
		return err
	}
	if _, ok := r.Get(real); ok && kind != "L+" {
		return nil
	}
	if kind == "L?" {
		from := target
		if !path.IsAbs(from) {
			from = path.Join(path.Dir(at), from)
		}
		if _, _, err := r.Resolve(from); err != nil {
			return nil
		}
	}
	return r.replace(real, tree.Node{Mode: fs.ModeSymlink | 0o777, Link: target})
}
