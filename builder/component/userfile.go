package component

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// userFiles are the files that the spec puts on the node.
func userFiles() Component {
	return Component{
		Name: "files", Doc: "files of the spec",
		Add: func(n *spec.Node, _ Facts) (Addition, error) {
			var a Addition
			for _, f := range n.Files {
				mode, err := strconv.ParseUint(cmp.Or(f.Mode, "0644"), 8, 12)
				if err != nil {
					return Addition{}, fmt.Errorf("files: %s: mode %q is not octal", f.Path, f.Mode)
				}
				a.Files = append(a.Files, File{Path: f.Path, Mode: uint32(mode), Text: f.Content})
			}
			return a, nil
		},
	}
}
