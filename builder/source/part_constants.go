package source

import (
	"context"
	"fmt"
	"strings"

	"github.com/imgbuild/imgbuild/internal/run"
)

// Constants are the tags of the images that a kubeadm brings up beside
// Kubernetes itself, as they are in the image's name: "3.7.0-0", "v1.14.6", "3.10.2".
type Constants struct{ Etcd, CoreDNS, Pause string }

// KubeadmRegistry is kubeadm's default imageRepository.
const KubeadmRegistry = "registry.k8s.io"

// PauseImage is the full reference of the sandbox image.
func (c Constants) PauseImage() string { return KubeadmRegistry + "/pause:" + c.Pause }

// Images lists the full references of all images that `kubeadm init` of that
// Kubernetes version needs, as `kubeadm config images list` does.
func (c Constants) Images(kubernetes string) []string {
	var refs []string
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		refs = append(refs, KubeadmRegistry+"/"+name+":v"+kubernetes)
	}
	return append(refs, KubeadmRegistry+"/coredns/coredns:"+c.CoreDNS, c.PauseImage(), KubeadmRegistry+"/etcd:"+c.Etcd)
}

// askKubeadm runs a kubeadm that lies on this host and reads its list of images.
func askKubeadm(ctx context.Context, path, kubernetes string) (Constants, error) {
	out, err := run.Output(ctx, run.Cmd{Name: path, Args: []string{"config", "images", "list", "--kubernetes-version", "v" + kubernetes}})
	if err != nil {
		return Constants{}, fmt.Errorf("running kubeadm: %w", err)
	}
	return parseImageList(string(out))
}

func parseImageList(text string) (c Constants, err error) {
	for line := range strings.Lines(text) {
		repo, tag := splitTag(strings.TrimSpace(line))
		switch repo {
		case KubeadmRegistry + "/etcd":
			c.Etcd = tag
		case KubeadmRegistry + "/coredns/coredns":
			c.CoreDNS = tag
		case KubeadmRegistry + "/pause":
			c.Pause = tag
		}
	}
	if c.Etcd == "" || c.CoreDNS == "" || c.Pause == "" {
		return Constants{}, fmt.Errorf("its list of images lacks etcd, CoreDNS or pause: %q", text)
	}
	return c, nil
}

// splitTag cuts "host:5000/repo:tag" into repository and tag.
func splitTag(ref string) (repo, tag string) {
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[:i], ref[i+1:]
	}
	return ref, ""
}

// Tag is the tag of the image whose name without a tag is given, or "".
func (c Constants) Tag(image string) string {
	return map[string]string{
		KubeadmRegistry + "/etcd":            c.Etcd,
		KubeadmRegistry + "/coredns/coredns": c.CoreDNS,
		KubeadmRegistry + "/pause":           c.Pause,
	}[image]
}
