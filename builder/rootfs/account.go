package rootfs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// addUsers gives the tree accounts that have no password, each with a group of its
// own: passwd(5), group(5), shadow(5), gshadow(5).
func addUsers(t *tree.Tree, users []component.User) error {
	if len(users) == 0 {
		return nil
	}
	lines := map[string][]string{}
	for _, file := range []string{"etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"} {
		text, err := t.ReadFile(file)
		if err != nil {
			return err
		}
		lines[file] = strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	}
	for _, u := range users {
		id := strconv.Itoa(u.ID)
		for _, file := range []string{"etc/passwd", "etc/group"} {
			if slices.ContainsFunc(lines[file], func(l string) bool { f := strings.Split(l, ":"); return f[0] == u.Name || len(f) > 2 && f[2] == id }) {
				return fmt.Errorf("the base has a user or group with the name %s or the number %s already: use another one", u.Name, id)
			}
		}
		lines["etc/passwd"] = append(lines["etc/passwd"], strings.Join([]string{u.Name, "x", id, id, "", u.Home, u.Shell}, ":"))
		lines["etc/shadow"] = append(lines["etc/shadow"], u.Name+":*:::::::")
		lines["etc/group"] = append(lines["etc/group"], u.Name+":x:"+id+":")
		lines["etc/gshadow"] = append(lines["etc/gshadow"], u.Name+":!::")
		for _, group := range u.Groups {
			if !addMember(lines["etc/group"], group, u.Name) {
				return fault.New(fault.Spec, "users: %s: the base has no group %s; have the package that brings it in base.packages, or leave it out", u.Name, group)
			}
			addMember(lines["etc/gshadow"], group, u.Name) // which need not have it
		}
	}
	for file, all := range lines {
		n, _ := t.Get(file)
		n.Content = tree.Bytes(strings.Join(all, "\n") + "\n")
	}
	return nil
}

// addMember puts a user on a group's list, the last field of its line.
func addMember(lines []string, group, user string) bool {
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, group+":") })
	if i < 0 {
		return false
	}
	if !strings.HasSuffix(lines[i], ":") {
		lines[i] += ","
	}
	lines[i] += user
	return true
}
