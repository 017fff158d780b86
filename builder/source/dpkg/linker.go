package dpkg

import (
	"strings"

	"github.com/imgbuild/imgbuild/internal/ldcache"
)

// linkerCache makes /etc/ld.so.cache, as libc-bin's ldconfig(8) would.
func (r *root) linkerCache(packages []*Package) error {
	entries, machine, err := ldcache.Scan(r.Tree)
	if err != nil {
		return err
	}
	generator := "ldconfig"
	for _, p := range packages {
		if p.Name == "libc-bin" {
			upstream, _, _ := strings.Cut(p.Version, "-")
			distribution := "Debian"
			if strings.Contains(p.Version, "ubuntu") {
				distribution = "Ubuntu"
			}
			generator += " (" + distribution + " GLIBC " + p.Version + ") stable release version " + upstream
		}
	}
	return r.text("etc/ld.so.cache", ldcache.Write(entries, machine, generator))
}
