package dpkg

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// profile is a file of /usr/share/pam-configs.
type profile struct {
	name     string // the file's
	priority int
	fields   map[string]string
}

// pam makes /etc/pam.d/common-* from its templates and the profiles that packages
// enable by default, as pam-auth-update(8) does on a first installation.
func (r *root) pam() error {
	const dir = "usr/share/pam-configs"
	var on []profile
	for _, p := range r.Paths() {
		if path.Dir(p) != dir {
			continue
		}
		text, err := r.ReadFile(p)
		if err != nil {
			return err
		}
		f := pamFields(string(text))
		if f["Default"] != "yes" {
			continue
		}
		if f["Conflicts"] != "" {
			return fmt.Errorf("the PAM profile %s conflicts with %s, which nobody chose between; %s", path.Base(p), f["Conflicts"], WayOut)
		}
		priority, _ := strconv.Atoi(f["Priority"])
		on = append(on, profile{path.Base(p), priority, f})
	}
	slices.SortStableFunc(on, func(a, b profile) int {
		return cmp.Or(b.priority-a.priority, strings.Compare(a.fields["Name"], b.fields["Name"]))
	})
	for _, kind := range []string{"auth", "account", "password", "session", "session-noninteractive"} {
		template, err := r.ReadFile("usr/share/pam/common-" + kind)
		if err != nil {
			return err
		}
		text, err := pamStack(string(template), kind, on)
		if err != nil {
			return err
		}
		if err := r.text("etc/pam.d/common-"+kind, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func pamFields(text string) map[string]string {
	f, last := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\n")
		if key, value, ok := strings.Cut(line, ":"); ok && !strings.ContainsAny(key, " \t") {
			last = strings.TrimSuffix(key, "-Final")
			f[last] = strings.TrimSpace(value)
		} else if line != "" {
			f[last] = strings.TrimLeft(f[last]+"\n"+strings.TrimSpace(line), "\n")
		}
	}
	if f["Session-Interactive-Only"] != "yes" {
		for _, ending := range []string{"-Type", "", "-Initial"} {
			f["Session-noninteractive"+ending] = f["Session"+ending]
		}
	}
	return f
}

// pamStack fills a template's two blocks.
func pamStack(template, kind string, on []profile) (string, error) {
	var b strings.Builder
	filled := 0
	for line := range strings.Lines(template) {
		block := map[string]string{"primary\n": "Primary", "additional\n": "Additional"}[line[strings.LastIndexByte(line, '_')+1:]]
		if !strings.HasPrefix(line, "$") || block == "" {
			b.WriteString(line)
			continue
		}
		filled++
		pamBlock(&b, kind, block, on)
	}
	if filled != 2 {
		return "", fmt.Errorf("the PAM template common-%s has %d blocks, want 2; %s", kind, filled, WayOut)
	}
	return b.String(), nil
}

var pamLine = regexp.MustCompile(`^((?:\[[^]]+\]|\w+)\s+\S+)\s*(.*)`)

func pamBlock(b *strings.Builder, kind, block string, on []profile) {
	field := strings.ToUpper(kind[:1]) + kind[1:]
	typ, _, _ := strings.Cut(kind, "-")
	var all []string
	first := true
	for _, p := range on {
		if p.fields[field+"-Type"] != block {
			continue
		}
		text := p.fields[field]
		if initial := p.fields[field+"-Initial"]; first && initial != "" {
			text = initial
		}
		first = false
		if text != "" {
			all = append(all, strings.Split(text, "\n")...)
		}
	}
	if len(all) == 0 && block == "Primary" {
		b.WriteString(typ + "\t[default=1]\t\t\tpam_permit.so\n")
	}
	for i, line := range all {
		left := len(all) - i
		if block == "Additional" {
			left-- // no jump off the stack's end
		}
		if m := pamLine.FindStringSubmatch(line); m != nil {
			line = strings.ReplaceAll(m[1], "end", strconv.Itoa(left)) + " " + strings.Join(strings.Fields(m[2]), " ")
		}
		b.WriteString(typ + "\t" + line + "\n")
	}
}
