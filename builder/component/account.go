package component

import (
	"fmt"
	"strings"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// keysDir is where sshd finds each user's keys, a file by the user's name.
const keysDir = "/etc/ssh/authorized_keys.d/"

// accounts are the users of the spec. Their homes lie on /var, made at boot.
func accounts() Component {
	return Component{
		Name: "users", Doc: "users of the spec",
		Add: func(n *spec.Node, _ Facts) (Addition, error) {
			var a Addition
			var homes strings.Builder
			for _, u := range n.Users {
				home := "/home/" + u.Name
				a.Users = append(a.Users, User{u.Name, u.UID, u.Groups, home, u.Shell})
				fmt.Fprintf(&homes, "d /var%s 0700 %s %s -\n", home, u.Name, u.Name)
				if len(u.SSHAuthorizedKeys) > 0 {
					a.Files = append(a.Files, File{Path: keysDir + u.Name, Mode: 0o644, Text: strings.Join(u.SSHAuthorizedKeys, "\n") + "\n"})
				}
			}
			if len(a.Users) > 0 {
				a.Files = append(a.Files, File{Path: "/usr/lib/tmpfiles.d/imgbuild-users.conf", Mode: 0o644, Text: homes.String()})
			}
			return a, nil
		},
	}
}

// userUnits are the units of the spec.
func userUnits() Component {
	return Component{
		Name: "units", Doc: "systemd units of the spec",
		Add: func(n *spec.Node, _ Facts) (Addition, error) {
			var a Addition
			for _, u := range n.Units {
				switch {
				case u.Mask:
					a.Mask = append(a.Mask, u.Name)
				case u.WantedBy != "":
					a.Enable = append(a.Enable, Unit{u.Name, u.WantedBy})
				}
				if u.Content != "" {
					a.Files = append(a.Files, File{Path: "/etc/systemd/system/" + u.Name, Mode: 0o644, Text: u.Content})
				}
			}
			return a, nil
		},
	}
}
