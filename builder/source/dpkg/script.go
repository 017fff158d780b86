package dpkg

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/arch"
)

// scriptNames are the maintainer scripts that dpkg and debconf run when a package is
// installed. prerm and postrm run at a removal, and nothing is removed here.
var scriptNames = []string{"preinst", "config", "postinst"}

//go:embed snippets
var snippetFiles embed.FS

// snippets are the sections that debhelper writes into scripts, in the normal form of
// normalSection, with what they do. A file's first line is "# does: ACTION".
var snippets = func() map[string]string {
	out := map[string]string{}
	entries, _ := snippetFiles.ReadDir("snippets")
	for _, e := range entries {
		text, _ := snippetFiles.ReadFile("snippets/" + e.Name())
		head, body, _ := strings.Cut(string(text), "\n")
		out[normalLines(body)] = strings.TrimPrefix(head, "# does: ")
	}
	return out
}()

// section is one piece of a script that debhelper generated.
type section struct {
	tool string   // such as dh_installsystemd
	does string   // a snippet's action, or "" when nobody knows it
	args []string // what it names: units, files, words of a command
	text string
}

var (
	sectionForm  = regexp.MustCompile(`(?ms)^# Automatically added by ([^/\n]+)[^\n]*\n(.*?)^# End automatically added section\n`)
	helperForm   = regexp.MustCompile(`^dpkg-maintscript-helper (?:rm_conffile|mv_conffile|symlink_to_dir|dir_to_symlink) [^;&|<>$()` + "`" + `]* -- "\$@"$`)
	argumentForm = regexp.MustCompile(`(?m)` + strings.Join([]string{
		`'([\w@.+:\\-]+)'`,
		`(?:systemd-sysusers|systemd-tmpfiles) \$\{DPKG_ROOT:\+--root="\$DPKG_ROOT"\} (?:--create )?([\w@.+ -]+?)( \|\| true|$)`,
		`update-alternatives --install ([^;&|<>$()` + "`" + `\n]+)`,
		`(?:/etc/init\.d/|update-rc\.d |invoke-rc\.d --skip-systemd-native )([\w.+-]+)`,
		`py3compile -p ([\w.:+/ -]+?)( \|\| true|$)`, // pypy3compile, too
		`APP_PROFILE="/etc/apparmor\.d/(?:local/)?([\w.+-]+)"`,
		`# Installing (\S+ from \S+ in position \S+)`,
	}, "|"))
)

// split takes the generated sections out of a script. What remains was written by hand.
func split(script string) (sections []section, rest string) {
	for _, m := range sectionForm.FindAllStringSubmatch(script, -1) {
		normal, args := normalSection(m[2])
		s := section{tool: m[1], does: snippets[normal], args: args, text: normal}
		if s.does == "" && onlyHelpers(m[2]) {
			s.does = "maintscript"
		}
		sections = append(sections, s)
	}
	return sections, sectionForm.ReplaceAllString(script, "")
}

// onlyHelpers says whether a section does nothing but call dpkg-maintscript-helper(1),
// which on a first installation finds nothing to move or remove.
func onlyHelpers(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !helperForm.MatchString(line) {
			return false
		}
	}
	return true
}

// normalSection takes from a section what differs from package to package.
func normalSection(text string) (normal string, args []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	normal = argumentForm.ReplaceAllStringFunc(normalLines(text), func(s string) string {
		for _, group := range argumentForm.FindStringSubmatch(s)[1:] {
			if group != "" && group != " || true" {
				args = append(args, group)
				return strings.Replace(s, group, "X", 1)
			}
		}
		return s
	})
	for strings.Contains(normal, "'X' 'X'") {
		normal = strings.ReplaceAll(normal, "'X' 'X'", "'X'")
	}
	return normal, args
}

// normalLines is the text without indentation, empty lines and repeated spaces.
func normalLines(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return strings.Join(lines, "\n")
}

// remainder is the hand-written part of a script as the table's digests see it: the
// package's own version and the kernel's release do not count, nor do empty lines.
// It is empty when nothing is left that does anything.
func (p *Package) remainder(rest string) string {
	var lines []string
	idle := true
	for line := range strings.Lines(p.general(rest)) {
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" {
			continue
		}
		lines = append(lines, line)
		word := strings.TrimSpace(line)
		idle = idle && (strings.HasPrefix(word, "#") || slices.Contains([]string{"set -e", "exit 0", ":"}, word))
	}
	if idle {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// general writes @VERSION@ and @RELEASE@ for what changes with every version, and
// @TRIPLET@ and @ARCH@ for the architecture's folder and for packages of it.
func (p *Package) general(s string) string {
	if names, err := arch.Of(p.Arch); err == nil { // else it is for all
		s = strings.NewReplacer(names.Triplet, "@TRIPLET@", ":"+p.Arch, ":@ARCH@").Replace(s)
	}
	if r := p.release(); r != "" {
		s = strings.ReplaceAll(s, r, "@RELEASE@")
	}
	if len(p.Version) > 3 {
		s = strings.ReplaceAll(s, p.Version, "@VERSION@")
	}
	return s
}

// special is the opposite of general.
func (p *Package) special(s string) string {
	names, _ := arch.Of(p.Arch)
	return strings.NewReplacer("@RELEASE@", p.release(), "@VERSION@", p.Version, "@ARCH@", p.Arch, "@TRIPLET@", names.Triplet).Replace(s)
}

// kernelForm are a kernel's packages: Debian's is one, Ubuntu has the modules in one or two of their own.
var kernelForm = regexp.MustCompile(`^linux-(image|modules|modules-extra)-(\d.*)$`)

// release is the kernel's release, of a kernel's package.
func (p *Package) release() string {
	if m := kernelForm.FindStringSubmatch(p.Name); m != nil {
		return m[2]
	}
	return ""
}

func digest(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
