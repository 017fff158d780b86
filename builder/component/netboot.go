package component

// netboot is what a machine that booted by network, or from a medium, does instead of being a node: it
// writes an image to its disk. Without the credential that says so nothing starts it.
func netboot() Component {
	return Component{
		Name: "netboot", Doc: "installs a disk by network or from a medium, if asked for",
		Add: fromOverlay("netboot", Addition{}),
	}
}
