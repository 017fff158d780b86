package host

import (
	"fmt"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
)

// payloadUnit starts what the payload brings: at boot the service manager has decided
// what to start before the payload is merged. It is not called imgbuild-, for it makes
// folders in /opt, and units that are called so run in a sandbox (imgbuild-.service.d).
const payloadUnit = "kubernetes-payload.service"

// extensions merges system extensions at boot; it is not enabled everywhere.
const extensions = "systemd-sysext.service"

// units are those that the config enables: the host's own, those that it writes, and
// the one that merges the payload. Those of the payload are started by payloadUnit.
func (n *Node) units() []component.Unit {
	out := []component.Unit{{Name: extensions, By: "sysinit.target"}}
	for _, u := range n.Enable {
		if !n.brings(u.Name) {
			out = append(out, u)
		}
	}
	return out
}

// brings says whether a unit comes with the payload.
func (n *Node) brings(unit string) bool {
	return slices.ContainsFunc(n.Payload, func(f component.File) bool { return f.Path == "/usr/lib/systemd/system/"+unit })
}

// starter is the text of payloadUnit.
func (n *Node) starter() string {
	var names []string
	for _, u := range n.Enable {
		if n.brings(u.Name) {
			names = append(names, u.Name)
		}
	}
	return fmt.Sprintf(`[Unit]
Description=Start what the Kubernetes payload brings
Requires=%[1]s
After=%[1]s systemd-tmpfiles-setup.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/systemctl daemon-reload
ExecStart=/usr/bin/systemd-tmpfiles --create --prefix=/opt/cni --prefix=/var/opt/cni
ExecStart=/usr/bin/systemctl enable --runtime %[2]s
ExecStart=/usr/bin/systemctl start --no-block %[2]s

[Install]
WantedBy=multi-user.target
`, extensions, strings.Join(names, " "))
}
