package component

// swap is that there is none: no partition is found, no unit and no generator makes one.
func swap() Component {
	return Component{
		Name: "swap", Doc: "nothing swaps, in none of its forms",
		Add: fromOverlay("swap", Addition{
			Mask:    []string{"swap.target", "systemd-zram-setup@zram0.service"},
			Cmdline: []string{"systemd.swap=0", "noresume"},
			Checks:  []Check{{"no swap", "[ $(wc -l < /proc/swaps) = 1 ]"}},
		}),
	}
}
