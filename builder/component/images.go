package component

import (
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
)

// Names of images without a tag, as kubeadm knows them. A request without a
// version takes the tag that the chosen kubeadm names.
const (
	kubeRegistry = "registry.k8s.io/"
	flannelImage = "ghcr.io/flannel-io/flannel"
)

// onboardImages is every container image that a node of the role needs, unpacked, so
// that a first boot needs no network beyond its own cluster. The builder puts them
// into the root; what is here lets containerd find them.
func onboardImages() Component {
	return Component{
		Name: "images", Doc: "all container images of the role on board",
		Request: func(n *spec.Node) Wants {
			k := n.Kubernetes
			image := func(name, version string) lock.Request {
				return lock.Request{Kind: lock.KindImage, Name: name, Version: version, Source: k.Source}
			}
			theirs := func(name string) lock.Request { // kubeadm's version is part of what is asked
				r := image(name, "")
				r.Args = []string{"kubeadm=" + k.Version}
				return r
			}
			out := []lock.Request{image(kubeRegistry+"kube-proxy", "v"+k.Version), theirs(kubeRegistry + "pause"), theirs(kubeRegistry + "coredns/coredns")}
			if n.Role == "master" {
				for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
					out = append(out, image(kubeRegistry+name, "v"+k.Version))
				}
				out = append(out, theirs(kubeRegistry+"etcd"))
			}
			return Wants{Requests: out}
		},
		Add: func(n *spec.Node, f Facts) (Addition, error) {
			files, err := overlay("images", view{Node: n, Facts: f})
			a := Addition{Files: files}
			for _, ref := range f.Images {
				a.Checks = append(a.Checks, Check{"image " + ref + " is on board", "crictl inspecti " + ref + " | grep -q '\"pinned\": true'"})
			}
			return a, err
		},
	}
}
