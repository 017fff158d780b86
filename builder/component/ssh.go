package component

import "github.com/imgbuild/imgbuild/builder/spec"

// ssh is remote login by keys; off unless the spec turns it on.
func ssh() Component {
	on := fromOverlay("ssh", Addition{
		Enable: []Unit{{"ssh.service", "multi-user.target"}, {"imgbuild-sshkeys.service", "multi-user.target"}},
		Ports:  []Port{{"tcp", 22, 22, "SSH"}},
	})
	return Component{
		Name: "ssh", Doc: "SSH by keys, if asked for",
		Request: func(n *spec.Node) Wants {
			if !n.SSH.Enabled {
				return Wants{}
			}
			return Wants{Packages: []string{"openssh-server"}}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			if !n.SSH.Enabled {
				return Addition{Mask: []string{"ssh.service", "ssh.socket"}, Checks: []Check{{"no sshd", "! pgrep -x sshd"}}}, nil
			}
			return on(n, f)
		},
	}
}
