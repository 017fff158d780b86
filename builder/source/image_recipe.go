package source

import (
	"fmt"
	"io/fs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// recipe is how an image is packed from parts, so that it can stand in for the
// upstream one: the same paths, user and entry point, as kubeadm's static pods,
// its addons and flannel's DaemonSet expect them.
type recipe struct {
	parts []placed
	entry []string // the first part's path when empty
	user  string
	tools []string // executables of the base system that the parts call, first to last as they lie there; a missing one is an error
	extra []string // the same, but may be missing; a folder is taken whole
}

// placed is a part at its path in an image.
type placed struct {
	name, path string
	bind       bool // may bind ports below 1024 as an ordinary user
}

// netTools are what kube-proxy and flanneld start, and cp, which flannel's init
// containers call. Both images take the same list, and so share a layer.
var netTools = struct{ must, may []string }{
	must: []string{"/usr/sbin/nft", "/usr/bin/cp"},
	may: []string{"/usr/sbin/iptables", "/usr/sbin/ip6tables", "/usr/sbin/iptables-save", "/usr/sbin/iptables-restore",
		"/usr/sbin/ip6tables-save", "/usr/sbin/ip6tables-restore", "/usr/sbin/conntrack", "/usr/sbin/ipset", "/usr/lib/@TRIPLET@/xtables"},
}

// recipes is the one table of images that can be packed, by repository.
var recipes = map[string]recipe{
	"registry.k8s.io/kube-apiserver":          {parts: []placed{{name: "kube-apiserver", path: "usr/local/bin/kube-apiserver", bind: true}}},
	"registry.k8s.io/kube-controller-manager": {parts: []placed{{name: "kube-controller-manager", path: "usr/local/bin/kube-controller-manager"}}},
	"registry.k8s.io/kube-scheduler":          {parts: []placed{{name: "kube-scheduler", path: "usr/local/bin/kube-scheduler"}}},
	"registry.k8s.io/kube-proxy":              {parts: []placed{{name: "kube-proxy", path: "usr/local/bin/kube-proxy"}}, tools: netTools.must, extra: netTools.may},
	"registry.k8s.io/etcd":                    {parts: []placed{{name: "etcd", path: "usr/local/bin/etcd"}}},
	"registry.k8s.io/coredns/coredns":         {parts: []placed{{name: "coredns", path: "coredns", bind: true}}, user: "nonroot:nonroot"},
	"registry.k8s.io/pause":                   {parts: []placed{{name: "pause", path: "pause"}}, user: "65535:65535"},
	"ghcr.io/flannel-io/flannel":              {parts: []placed{{name: "flanneld", path: "opt/bin/flanneld"}}, tools: netTools.must, extra: netTools.may},
	"ghcr.io/flannel-io/flannel-cni-plugin":   {parts: []placed{{name: "flannel-cni", path: "flannel"}}, tools: netTools.must, extra: netTools.may, entry: []string{"/usr/bin/cp"}},
}

// recipeOf finds the recipe for an image's full reference.
func recipeOf(ref string) (r recipe, tag string, err error) {
	repo, tag := splitTag(ref)
	r, ok := recipes[repo]
	if !ok {
		return recipe{}, "", fmt.Errorf("no Go module is known for image %q: %w", ref, ErrNotOffered)
	}
	if tag == "" {
		return recipe{}, "", fmt.Errorf("image %q needs a tag", ref)
	}
	return r, tag, nil
}

// capNetBind is the extended attribute that `setcap cap_net_bind_service=+ep`
// writes: vfs_cap_data, revision 2, effective; permitted bit 10.
const capNetBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// packer packs images for one architecture over one base.
type packer struct {
	base  *tree.Tree
	arch  string
	tools *treeLayer // the layer of netTools, made once
}

func newPacker(base *tree.Tree, arch string) *packer { return &packer{base: base, arch: arch} }

func (p *packer) pack(r recipe, parts []Executable) (v1.Image, error) {
	layers := make([]v1.Layer, 0, 2)
	if len(r.tools) > 0 {
		tools, err := p.toolLayer(r)
		if err != nil {
			return nil, err
		}
		layers = append(layers, tools)
	}
	top, err := skeleton()
	if err != nil {
		return nil, err
	}
	for i, part := range r.parts {
		n := tree.Node{Mode: 0o755, Content: parts[i]}
		if part.bind {
			n.Xattrs = map[string]string{"security.capability": capNetBind}
		}
		if err := top.Put(part.path, n); err != nil {
			return nil, err
		}
	}
	return p.image(r, append(layers, newTreeLayer(top)))
}

func (p *packer) image(r recipe, layers []v1.Layer) (v1.Image, error) {
	entry := r.entry
	if len(entry) == 0 {
		entry = []string{"/" + r.parts[0].path}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var adds []mutate.Addendum
	for _, l := range layers {
		adds = append(adds, mutate.Addendum{Layer: l, History: v1.History{Created: v1.Time{Time: repro.Epoch()}, CreatedBy: "imgbuild"}})
	}
	img, err := mutate.Append(img, adds...)
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Created = "linux", p.arch, v1.Time{Time: repro.Epoch()}
	cfg.Config = v1.Config{
		Entrypoint: entry, User: r.user, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
	}
	return mutate.ConfigFile(img, cfg)
}

func (p *packer) toolLayer(r recipe) (*treeLayer, error) {
	if p.tools != nil {
		return p.tools, nil
	}
	if p.base == nil {
		return nil, fmt.Errorf("packing it needs the base system's tree, for %v", r.tools)
	}
	t, err := closure(p.base, p.arch, r.tools, r.extra)
	if err != nil {
		return nil, err
	}
	p.tools = newTreeLayer(t)
	return p.tools, nil
}

// skeleton is what programs expect even in an image without an operating system.
func skeleton() (*tree.Tree, error) {
	t := tree.New()
	for path, text := range map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
		"etc/group":         "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n",
		"etc/nsswitch.conf": "hosts: files dns\n",
	} {
		if err := t.Put(path, tree.Node{Mode: 0o644, Content: tree.Bytes(text)}); err != nil {
			return nil, err
		}
	}
	return t, t.Put("tmp", tree.Node{Mode: fs.ModeDir | fs.ModeSticky | 0o777})
}
