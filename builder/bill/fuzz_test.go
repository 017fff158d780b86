package bill

import (
	"testing"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// FuzzDpkg gives dpkg's database whatever words.
func FuzzDpkg(f *testing.F) {
	f.Add(status, "/.\n/bin/bash\n", "/bin/sh\n/bin/sh.distrib\nbash\n")
	f.Fuzz(func(t *testing.T, status, list, diversions string) {
		root := tree.New()
		for p, text := range map[string]string{"usr/bin/bash": "x", dpkgDir + "/status": status, dpkgDir + "/info/bash.list": list, dpkgDir + "/diversions": diversions} {
			if err := root.Put(p, tree.Node{Mode: 0o644, Content: tree.Bytes(text)}); err != nil {
				t.Fatal(err)
			}
		}
		packages, _ := readPackages(root, "amd64")
		(&owners{tree: root, by: map[string]*Component{}}).claimPackages(packages)
	})
}
