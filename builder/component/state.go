package component

import (
	"strings"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// state is what lives on: /var, made and grown at first boot, and the short list
// of folders of /etc that it holds.
func state() Component {
	return Component{
		Name: "state", Doc: "/var on a partition of its own; what of /etc lives on",
		Request: wants("systemd-repart", "e2fsprogs"),
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			files, err := overlay("state", view{Node: n, Facts: f, VarSize: strings.TrimSuffix(n.Disk.VarSize, "i")}) // repart.d(5) counts by 1024, too
			return Addition{
				Files: files,
				// The unit that systemd-gpt-auto-generator(8) hooks up as well, once the machine id is kept:
				// of two programs that grow one file system, the second fails with EBUSY.
				Enable: []Unit{{"var.mount", "local-fs.target"}, {"systemd-growfs@var.service", "local-fs.target"},
					{"etc-kubernetes.mount", "local-fs.target"}, {"etc-cni-net.d.mount", "local-fs.target"}},
				Mask: []string{"modprobe@dm_mod.service", "systemd-remount-fs.service"}, // the initrd did both
				Checks: []Check{
					{"root is read-only and verified", `findmnt -no OPTIONS / | grep -qw ro && findmnt -no FSTYPE / | grep -qx erofs && [ "$(cat /sys/class/block/dm-0/dm/name)" = root ]`},
					{"/var is on its own partition", "findmnt -no FSTYPE /var | grep -qx ext4"},
					{"/etc forgets", "findmnt -no FSTYPE /etc | grep -qx overlay"},
				},
			}, err
		},
	}
}
