package component

// netboot is what a machine that booted by network does instead of being a node: it
// writes an image to its disk. Without the credential that says so nothing starts it.
func netboot() Component {
	return Component{
		Name: "netboot", Doc: "installs a disk by network, if asked for",
		Add: fromOverlay("netboot", Addition{}),
	}
}
