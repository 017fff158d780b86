// Package profiles holds the roles as data: common.yaml, which every node has, and
// one file per role, laid over it. It holds no logic.
package profiles

import "embed"

// Files has the profiles, by file name.
//
//go:embed *.yaml
var Files embed.FS
