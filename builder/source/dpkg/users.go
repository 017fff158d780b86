package dpkg

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// users is passwd(5), group(5), shadow(5) and gshadow(5) in the making.
type users struct {
	passwd, groups, shadow, gshadow [][]string // fields of a line
	shadowed                        bool       // every password is in the shadow files, which the group shadow reads
}

// systemMax is the highest number of an account that a package makes; the next one has
// the next lower number (sysusers.d(5)).
const systemMax, systemMin = 999, 100

func readUsers(passwd, group []byte) (u users, err error) {
	if u.passwd, err = lines(passwd, 7); err == nil {
		u.groups, err = lines(group, 4)
	}
	return u, err
}

func lines(text []byte, fields int) (out [][]string, err error) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		l := strings.Split(line, ":")
		if len(l) != fields {
			return nil, fmt.Errorf("line %q has %d fields, want %d", line, len(l), fields)
		}
		out = append(out, l)
	}
	return out, nil
}

func (u *users) user(name string) (int, bool)  { return find(u.passwd, name) }
func (u *users) group(name string) (int, bool) { return find(u.groups, name) }

func find(lines [][]string, name string) (int, bool) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, true
	}
	for _, l := range lines {
		if l[0] == name && len(l) > 2 {
			id, err := strconv.Atoi(l[2])
			return id, err == nil
		}
	}
	return 0, false
}

// free is the next number that neither a user nor a group has.
func (u *users) free() (int, error) {
	taken := func(lines [][]string, id string) bool {
		return slices.ContainsFunc(lines, func(l []string) bool { return len(l) > 2 && l[2] == id })
	}
	for id := systemMax; id >= systemMin; id-- {
		if s := strconv.Itoa(id); !taken(u.passwd, s) && !taken(u.groups, s) {
			return id, nil
		}
	}
	return 0, fmt.Errorf("all numbers from %d to %d are taken by users or groups", systemMin, systemMax)
}

// byHand are the names of the users and groups that a script makes itself.
func (d Deeds) byHand() (names []string) {
	names = slices.Clone(d.Groups)
	for _, w := range d.Users {
		names = append(names, w.Name, w.Group)
	}
	return names
}

// sysusers makes the accounts that one file of sysusers.d(5) asks for: its groups, then its users.
// Those that the package's own script makes by hand it would find there.
func (u *users) sysusers(text string, byHand []string) error {
	all := sysuserLines(text)
	for _, kinds := range []string{"g", "u", "m"} {
		for _, w := range all {
			kind := strings.TrimRight(w[0], "!")
			if !strings.Contains("gum", kind) || kind == "" {
				return fmt.Errorf("sysusers.d line type %q is unknown", w[0])
			}
			if kind != kinds || kind != "m" && slices.Contains(byHand, w[1]) {
				continue
			}
			if err := u.sysuser(w); err != nil {
				return fmt.Errorf("making %s: %w", w[1], err)
			}
		}
	}
	return nil
}

func (u *users) sysuser(w []string) error {
	word := func(i int, unset string) string {
		if i < len(w) && w[i] != "-" && w[i] != "" {
			return w[i]
		}
		return unset
	}
	switch w[0] {
	case "g":
		_, err := u.addGroup(w[1], word(2, ""))
		return err
	case "m":
		return u.addMember(w[1], word(2, ""))
	}
	if _, ok := u.user(w[1]); ok {
		return nil
	}
	uid, gid, both := strings.Cut(word(2, ""), ":")
	group := uid
	if both {
		group = gid
	}
	var id int
	var err error
	if uid == "-" {
		uid = ""
	}
	if n, ok := u.group(group); both && ok {
		id = n
		if uid == "" {
			n, err := u.free()
			if err != nil {
				return err
			}
			uid = strconv.Itoa(n)
		}
	} else if id, err = u.addGroup(w[1], group); err != nil {
		return err
	}
	if uid == "" {
		uid = strconv.Itoa(id)
	}
	u.passwd = append(u.passwd, []string{w[1], "x", uid, strconv.Itoa(id), word(3, ""), word(4, "/"), word(5, "/usr/sbin/nologin")})
	days, expire := strconv.FormatInt(repro.DefaultEpoch/86400, 10), ""
	if strings.HasSuffix(w[0], "!") {
		expire = "1"
	}
	u.shadow = append(u.shadow, []string{w[1], "!*", days, "", "", "", "", expire, ""})
	return nil
}

func (u *users) addGroup(name, number string) (int, error) {
	if id, ok := find(u.groups, name); ok {
		return id, nil
	}
	id, err := strconv.Atoi(number)
	if number == "" {
		id, err = u.free()
	}
	if err != nil {
		return 0, err
	}
	u.groups = append(u.groups, []string{name, "x", strconv.Itoa(id), ""})
	u.gshadow = append(u.gshadow, []string{name, "!*", "", ""})
	return id, nil
}

// addSystemGroup takes the lowest free number, as addgroup --system does.
func (u *users) addSystemGroup(name string) error {
	if _, ok := find(u.groups, name); ok {
		return nil
	}
	id, err := lowest(u.groups)
	if err != nil {
		return fmt.Errorf("making the group %s: %w", name, err)
	}
	u.groups = append(u.groups, []string{name, "x", id, ""})
	u.gshadow = append(u.gshadow, []string{name, "!", "", ""})
	return nil
}

// addSystemUser takes the lowest free number, as adduser --system does.
func (u *users) addSystemUser(w User) error {
	if _, ok := u.user(w.Name); ok {
		return nil
	}
	id, err := lowest(u.passwd)
	if err != nil {
		return fmt.Errorf("making the user %s: %w", w.Name, err)
	}
	group := cmp.Or(w.Group, "nogroup")
	if err := u.addSystemGroup(group); err != nil {
		return err
	}
	gid, _ := u.group(group)
	u.passwd = append(u.passwd, []string{w.Name, "x", id, strconv.Itoa(gid), w.Comment, cmp.Or(w.Home, "/nonexistent"), cmp.Or(w.Shell, "/usr/sbin/nologin")})
	u.shadow = append(u.shadow, []string{w.Name, "!", strconv.FormatInt(repro.DefaultEpoch/86400, 10), "", "", "", "", "", ""})
	for _, other := range w.Member {
		if err := u.addMember(w.Name, other); err != nil {
			return err
		}
	}
	return nil
}

// lowest is the lowest number for an account of the system that no line has.
func lowest(lines [][]string) (string, error) {
	for id := systemMin; id <= systemMax; id++ {
		if s := strconv.Itoa(id); !slices.ContainsFunc(lines, func(l []string) bool { return l[2] == s }) {
			return s, nil
		}
	}
	return "", fmt.Errorf("all numbers from %d to %d are taken", systemMin, systemMax)
}

// shadowAll moves passwords into the shadow files, as shadowconfig(8) does: pwconv and
// grpconv, with the ages that login.defs(5) has by default.
func (u *users) shadowAll() {
	days := strconv.FormatInt(repro.DefaultEpoch/86400, 10)
	for _, l := range u.passwd {
		if l[1] != "x" {
			u.shadow = append(u.shadow, []string{l[0], l[1], days, "0", "99999", "7", "", "", ""})
			l[1] = "x"
		}
	}
	for _, l := range u.groups {
		if l[1] != "x" {
			u.gshadow = append(u.gshadow, []string{l[0], l[1], "", l[3]})
			l[1] = "x"
		}
	}
	u.shadowed = true
}

func (u *users) addMember(user, group string) error {
	if _, err := u.addGroup(group, ""); err != nil {
		return err
	}
	for _, file := range [][][]string{u.groups, u.gshadow} {
		for _, l := range file {
			if l[0] == group && !slices.Contains(strings.Split(l[3], ","), user) {
				l[3] = strings.TrimLeft(l[3]+","+user, ",")
			}
		}
	}
	return nil
}

// sysuserLines are the lines' words: quotes hold spaces together.
func sysuserLines(text string) (out [][]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if w := quotedWords(line); len(w) > 1 {
			out = append(out, w)
		}
	}
	return out
}

func quotedWords(line string) (out []string) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		word, rest := line, ""
		if q := line[0]; q == '"' || q == '\'' {
			word, rest, _ = strings.Cut(line[1:], string(q))
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			word, rest = line[:i], line[i:]
		}
		out, line = append(out, word), rest
	}
	return out
}

// write puts the four files into the tree. Without a line the shadow files are not made.
func (u *users) write(r *root) error {
	shadow, _ := u.group("shadow")
	for file, all := range map[string][][]string{"passwd": u.passwd, "group": u.groups, "shadow": u.shadow, "gshadow": u.gshadow} {
		var b strings.Builder
		for _, l := range all {
			b.WriteString(strings.Join(l, ":") + "\n")
		}
		n := tree.Node{Mode: 0o644, Content: tree.Bytes(b.String())}
		if strings.Contains(file, "shadow") {
			if n.Mode = 0; len(all) == 0 { // root alone reads it, as systemd-sysusers makes it
				continue
			}
			if u.shadowed {
				n.Mode, n.GID = 0o640, shadow
			}
		}
		if err := r.Put("etc/"+file, n); err != nil {
			return err
		}
	}
	return nil
}
