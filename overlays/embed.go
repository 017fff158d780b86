// Package overlays holds the files that components put on a node, laid out as
// they lie there: COMPONENT/usr/…. Names that end in .tmpl are text/template
// templates. It holds no logic.
package overlays

import "embed"

// Files has every overlay.
//
//go:embed clusterapi cni containerd firewall firstboot flannel images kernel kubernetes netboot network ssh state swap system vip
var Files embed.FS
