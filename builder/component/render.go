package component

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Render turns what many components add to one file into that file: kernel
// modules, sysctls and the packet filter.
func Render(n *spec.Node, added []Addition) ([]File, error) {
	var modules []string
	sysctls := map[string]string{}
	var ports []Port
	for _, a := range added {
		modules = append(modules, a.Modules...)
		ports = append(ports, a.Ports...)
		for key, value := range a.Sysctls {
			if old, ok := sysctls[key]; ok && old != value {
				return nil, fmt.Errorf("two components want %s, one as %s, one as %s", key, old, value)
			}
			sysctls[key] = value
		}
	}
	maps.Copy(sysctls, n.Boot.Sysctls) // the user's settings win
	slices.Sort(modules)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		fmt.Fprintf(&text, "%s = %s\n", key, sysctls[key])
	}
	files := []File{
		{Path: "/usr/lib/modules-load.d/imgbuild.conf", Mode: 0o644, Text: strings.Join(slices.Compact(modules), "\n") + "\n"},
		{Path: "/usr/lib/sysctl.d/90-imgbuild.conf", Mode: 0o644, Text: text.String()},
	}
	if !n.Firewall.Enabled {
		return files, nil
	}
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First), cmp.Compare(a.Why, b.Why))
	})
	rules, err := overlay("firewall", view{Node: n, Ports: slices.Compact(ports), Pods: podNetworks[n.CNI.Name].Pods})
	return append(files, rules...), err
}

// NodeFacts is the image's description of itself, by which the first-boot agent knows it.
func NodeFacts(n *spec.Node, f Facts, id string) (File, error) {
	k := n.Kubernetes
	text, err := json.MarshalIndent(config.Facts{
		Role: n.Role, Arch: n.Arch, KubernetesVersion: k.Version, PodCIDR: k.PodCIDR, ServiceCIDR: k.ServiceCIDR, DNSDomain: k.DNSDomain,
		ProxyMode: k.ProxyMode, EtcdElection: k.EtcdElectionTimeout, CNI: n.CNI.Name, Images: f.Images, PlanID: id,
		Patches: slices.ContainsFunc(n.Files, func(f spec.File) bool { return path.Dir(f.Path) == config.PatchesDir }),
	}, "", " ")
	return File{Path: config.FactsFile, Mode: 0o644, Text: string(text) + "\n"}, err
}
