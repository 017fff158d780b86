package spec

import (
	"slices"
)

// network checks that the pod network's values are for that pod network.
func (c *checker) network() {
	cni := c.n.CNI
	if c.bad("cni.name") {
		return
	}
	own := cni.Name == "calico" || cni.Name == "cilium"
	for _, v := range []struct {
		path, value string
		used        bool
		hint        string
	}{
		{"cni.version", cni.Version, cni.Name == "flannel", "remove it"},
		{"cni.backend", cni.Backend, cni.Name != "none", "remove it"},
		{"cni.encryption", cni.Encryption, own, "remove it, or use " + orList(canEncrypt())},
		{"cni.manifest.file", cni.Manifest.File, own, "remove it"},
		{"cni.manifest.sha256", cni.Manifest.SHA256, own, "remove it"},
	} {
		if v.value != "" && !v.used && !c.bad(v.path) {
			c.fail(v.path, sprintf("not used by cni.name %s", quote(cni.Name)), v.hint)
		}
	}
	if known := Backends(cni.Name); len(known) > 0 && !slices.Contains(known, cni.Backend) && !c.bad("cni.backend") {
		c.fail("cni.backend", sprintf("%s has no backend %s", cni.Name, quote(cni.Backend)), "use "+orList(known))
	}
	if !own {
		return
	}
	if cni.Manifest.File == "" {
		c.fail("cni.manifest.file", sprintf("missing: %s is not on board", cni.Name), "name the file with its manifest, or set cni.name to none and apply it yourself")
	}
	if cni.Manifest.SHA256 == "" {
		c.fail("cni.manifest.sha256", "missing", "write the 64 digits that sha256sum prints for the manifest")
	}
}
