package component

// All is the one list of components. The order is only that of the plan's text:
// components do not build on one another.
func All() []Component {
	return []Component{
		kernel(),
		system(),
		state(),
		network(),
		firewall(),
		swap(),
		ssh(),
		containerd(),
		kubernetes(),
		onboardImages(),
		cni(),
		flannel(),
		vip(),
		firstboot(),
		netboot(),
		clusterAPI(),
		userFiles(),
		userUnits(),
		accounts(),
	}
}
