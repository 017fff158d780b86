package component

import (
	"strings"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// crictlVersion is the version of cri-tools that is taken.
const crictlVersion = "1.36.0"

// flexDir is where kubeadm before 1.36 mounts volume plugins from.
const flexDir = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec"

// kubernetes is kubeadm, kubelet, kubectl and crictl.
func kubernetes() Component {
	return Component{
		Name: "kubernetes", Doc: "kubeadm, kubelet, kubectl, crictl",
		Request: func(n *spec.Node) Wants {
			k := n.Kubernetes
			part := func(name, version string) lock.Request {
				return lock.Request{Kind: lock.KindPart, Name: name, Version: version, Source: k.Source}
			}
			return Wants{Requests: []lock.Request{part("kubeadm", k.Version), part("kubelet", k.KubeletVersion), part("kubectl", k.Version),
				part("crictl", crictlVersion)}}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			files, err := overlay("kubernetes", view{Node: n, Facts: f})
			for _, name := range []string{"kubeadm", "kubelet", "kubectl", "crictl"} {
				files = append(files, File{Path: "/usr/bin/" + name, Mode: 0o755, Part: name})
			}
			if strings.HasPrefix(n.Kubernetes.Version, "1.35.") {
				files = append(files, File{Path: flexDir, Link: "/var/lib/kubelet-plugins"})
			}
			a := Addition{
				Files:  files,
				Enable: []Unit{{"kubelet.service", "multi-user.target"}},
				Checks: []Check{
					{"kubeadm has the asked version", "[ $(kubeadm version -o short) = v" + n.Kubernetes.Version + " ]"},
					{"the kubelet is healthy", "systemctl is-active -q kubelet"},
					{"kubelet files are private", "[ $(stat -c %a /var/lib/kubelet/config.yaml) = 600 ]"},
				},
			}
			if n.Role == "master" {
				a.Checks = append(a.Checks,
					Check{"the API server keeps an audit log", "grep -q '\"kind\":\"Event\"' /var/log/kubernetes/audit/audit.log && ! grep -q requestObject /var/log/kubernetes/audit/audit.log"},
					Check{"etcd's folders are written through", "[ $(stat -fc %T /var/lib/etcd) != ext2/ext3 ] || [ $(lsattr -d /var/lib/etcd /var/lib/etcd/member/snap | grep -c '^[^ ]*D') = 2 ]"})
			}
			return a, err
		},
	}
}
