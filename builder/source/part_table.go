package source

import (
	"fmt"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// goPart is how an executable is built from its upstream module.
type goPart struct {
	module  string
	pkg     string                                 // package below the module; "" is its root
	out     string                                 // the file that go build makes of it; "" is the part's name
	ldflags func(version string) map[string]string // variables to set; version without "v"
	c       string                                 // a C file of the module instead of a package
	cgo     bool                                   // the package has C in it: linked statically with the host's C compiler
	k8s     bool                                   // the module's version is that of Kubernetes, whatever the part's own
}

const kubernetesModule = "k8s.io/kubernetes"

// goParts is the one table of executables that can be built from Go modules.
// All are static. flanneld needs cgo for its udp backend.
var goParts = map[string]goPart{
	"kubeadm":                 {module: kubernetesModule, pkg: "cmd/kubeadm", ldflags: kubernetesVars},
	"kubelet":                 {module: kubernetesModule, pkg: "cmd/kubelet", ldflags: kubernetesVars},
	"kubectl":                 {module: kubernetesModule, pkg: "cmd/kubectl", ldflags: kubernetesVars},
	"kube-apiserver":          {module: kubernetesModule, pkg: "cmd/kube-apiserver", ldflags: kubernetesVars},
	"kube-controller-manager": {module: kubernetesModule, pkg: "cmd/kube-controller-manager", ldflags: kubernetesVars},
	"kube-scheduler":          {module: kubernetesModule, pkg: "cmd/kube-scheduler", ldflags: kubernetesVars},
	"kube-proxy":              {module: kubernetesModule, pkg: "cmd/kube-proxy", ldflags: kubernetesVars},
	"pause":                   {module: kubernetesModule, c: "build/pause/linux/pause.c", k8s: true},
	"etcd":                    {module: "go.etcd.io/etcd/server/v3", out: "server"},
	"coredns":                 {module: "github.com/coredns/coredns"},
	"containerd":              {module: containerdModule, pkg: "cmd/containerd", ldflags: setVersion(containerdModule + "/version.Version")},
	"containerd-shim-runc-v2": {module: containerdModule, pkg: "cmd/containerd-shim-runc-v2", ldflags: setVersion(containerdModule + "/version.Version")},
	"ctr":                     {module: containerdModule, pkg: "cmd/ctr", ldflags: setVersion(containerdModule + "/version.Version")},
	"crictl":                  {module: criToolsModule, pkg: "cmd/crictl", ldflags: setVersion(criToolsModule + "/pkg/version.Version")},
	"flanneld":                {module: flannelModule, out: "flannel", cgo: true, ldflags: setVersion(flannelModule + "/pkg/version.Version")},
	"flannel-cni":             {module: cniModule, pkg: "plugins/meta/flannel", out: "flannel", ldflags: setVersion(cniModule + "/pkg/utils/buildversion.BuildVersion")},
}

const (
	containerdModule = "github.com/containerd/containerd/v2"
	criToolsModule   = "sigs.k8s.io/cri-tools"
	flannelModule    = "github.com/flannel-io/flannel"
	cniModule        = "github.com/containernetworking/plugins"
)

// partOf finds a part in the table.
func partOf(name string) (goPart, error) {
	p, ok := goParts[name]
	if !ok {
		return goPart{}, fmt.Errorf("no Go module is known for %q: %w", name, ErrNotOffered)
	}
	if p.out == "" {
		p.out = name
	}
	return p, nil
}

// hasC says whether a C compiler has a hand in it.
func (p goPart) hasC() bool { return p.c != "" || p.cgo }

// path is the package as go build takes it.
func (p goPart) path() string { return strings.TrimSuffix(p.module+"/"+p.pkg, "/") }

// kubernetesVars are what upstream's hack/lib/version.sh sets.
func kubernetesVars(version string) map[string]string {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	vars := map[string]string{}
	for _, pkg := range []string{"k8s.io/component-base/version.", "k8s.io/client-go/pkg/version."} {
		vars[pkg+"gitVersion"] = "v" + version
		vars[pkg+"gitMajor"] = major
		vars[pkg+"gitMinor"] = minor
		vars[pkg+"gitTreeState"] = "clean"
		vars[pkg+"gitCommit"] = ""
		vars[pkg+"buildDate"] = repro.Epoch().Format(time.RFC3339)
	}
	return vars
}

func setVersion(variable string) func(string) map[string]string {
	return func(version string) map[string]string { return map[string]string{variable: "v" + version} }
}
