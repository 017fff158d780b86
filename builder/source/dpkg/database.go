package dpkg

import (
	"crypto/md5" // #nosec G501 -- the form of dpkg's own record
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/deb"
)

// diversion moves a path out of the way of every package but one (dpkg-divert(1)).
type diversion struct{ to, by string }

// statusFields is the order in which dpkg writes a package's fields; the others follow as they come.
var statusFields = []string{"Package", "Essential", "Protected", "Status", "Priority", "Section", "Installed-Size", "Origin", "Maintainer", "Bugs",
	"Architecture", "Multi-Arch", "Source", "Version", "Config-Version", "Replaces", "Provides", "Depends", "Pre-Depends", "Recommends", "Suggests",
	"Breaks", "Conflicts", "Enhances", "Conffiles", "Description"}

// database writes dpkg's own files: every package is installed, nothing is pending.
func (r *root) database(packages []*Package, diverted map[string]diversion, owners []File) error {
	var status, diversions, overrides strings.Builder
	byName := slices.SortedFunc(slices.Values(packages), func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	for _, p := range byName {
		paragraph, err := p.status()
		if err != nil {
			return err
		}
		status.WriteString(paragraph + "\n")
	}
	for _, from := range sortedKeys(diverted) {
		fmt.Fprintf(&diversions, "%s\n%s\n%s\n", from, diverted[from].to, diverted[from].by)
	}
	for _, f := range owners {
		fmt.Fprintf(&overrides, "%s %s %s %s\n", f.User, f.Group, strings.TrimLeft(f.Mode, "0"), f.Path)
	}
	files := map[string]string{"status": status.String(), "diversions": diversions.String(), "statoverride": overrides.String(), "info/format": "1\n"}
	if i := slices.IndexFunc(packages, func(p *Package) bool { return p.Arch != "all" }); i >= 0 {
		files["arch"] = packages[i].Arch + "\n"
		files["arch-native"] = packages[i].Arch + "\n"
	}
	interests(byName, files)
	for _, name := range sortedKeys(files) {
		if err := r.text(admin+name, []byte(files[name])); err != nil {
			return err
		}
	}
	for _, dir := range []string{"alternatives", "info", "parts", "triggers", "updates"} {
		if err := r.make(File{Path: admin + dir}, dirMode, ""); err != nil {
			return err
		}
	}
	return nil
}

// status is the package's paragraph in the status file (deb-control(5), dpkg's lib/dpkg/parse.c).
func (p *Package) status() (string, error) {
	conffiles, err := p.conffiles()
	if err != nil {
		return "", err
	}
	fields := append([]deb.Field(slices.Clone(p.Control)), deb.Field{Name: "Status", Value: "install ok installed"}, deb.Field{Name: "Conffiles", Value: conffiles})
	rank := func(f deb.Field) int {
		i := slices.IndexFunc(statusFields, func(s string) bool { return strings.EqualFold(s, f.Name) })
		if i < 0 {
			i = len(statusFields)
		}
		return i
	}
	slices.SortStableFunc(fields, func(a, b deb.Field) int { return rank(a) - rank(b) })
	fields = slices.DeleteFunc(fields, func(f deb.Field) bool { return f.Value == "" })
	return deb.Paragraph(fields).String(), nil
}

// conffiles lists the package's configuration files with the sums of what it brings.
func (p *Package) conffiles() (string, error) {
	var b strings.Builder
	for line := range strings.Lines(text(p.Members["conffiles"])) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if words[0] == "remove-on-upgrade" {
			fmt.Fprintf(&b, "\n %s newconffile remove-on-upgrade", words[len(words)-1])
			continue
		}
		data, err := p.Files.ReadFile(words[0])
		if err != nil {
			fmt.Fprintf(&b, "\n %s newconffile", words[0]) // left out
			continue
		}
		fmt.Fprintf(&b, "\n %s %x", words[0], md5.Sum(data)) // #nosec G401 -- see the import
	}
	return b.String(), nil
}

// interests are the files of dpkg's triggers folder: File names those of paths, and
// every other trigger has a file of its own.
func interests(packages []*Package, files map[string]string) {
	files["triggers/File"] = ""
	for _, p := range packages {
		who := p.Name
		if p.Control.Get("Multi-Arch") == "same" {
			who += ":" + p.Arch
		}
		for _, t := range p.triggerLines() {
			if !t.interest {
				continue
			}
			ending := ""
			if t.noawait {
				ending = "/noawait"
			}
			if strings.HasPrefix(t.name, "/") {
				files["triggers/File"] += t.name + " " + who + ending + "\n"
			} else {
				files["triggers/"+t.name] += who + ending + "\n"
			}
		}
	}
}
