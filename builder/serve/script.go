package serve

import (
	"slices"
	"strings"
)

// iPXE's scripts. It takes || and && from left to right, so what follows a failure goes by
// labels. A machine gives up with `exit 1`: firmware then tries its next device.
const (
	shebang = "#!ipxe\n"
	pause   = "sleep 30\nexit 1\n"
)

// scriptAsking has the machine call back with who it is.
func scriptAsking(url string) string {
	return shebang + "chain --replace --autofree " + url +
		"?mac=${netX/mac:hexhyp}&uuid=${uuid}&serial=${serial:uristring}&platform=${platform}&arch=${buildarch} || goto failed\n" +
		":failed\necho imgbuild: nothing to boot for ${netX/mac}: the log of imgbuild serve says why\n" + pause
}

// scriptBoot boots a machine's image. iPXE always has words for what it starts, at least
// its name, and without Secure Boot systemd-stub takes them in the place of its own: they
// have to be the whole command line. The name in front is no parameter of the kernel.
func scriptBoot(name, boot, url, cmdline string) string {
	return shebang + "echo imgbuild: " + clean(name) + ", " + boot + "\nchain --autofree " + url + " " + cmdline + " || goto failed\n" +
		":failed\necho imgbuild: the image of " + clean(name) + " did not start\n" + pause
}

// sayable says whether words stand for themselves in a script.
func sayable(words string) bool {
	return !strings.ContainsAny(words, "$\"'\\\n\r") && !slices.ContainsFunc(strings.Fields(words), func(w string) bool { return w == "||" || w == "&&" })
}

// scriptUserData tells a script that called this one where the user data is.
func scriptUserData(folder string) string {
	return shebang + "set user-data " + folder + fileUserData + "\nset seed-from " + folder + "\nexit 0\n"
}

// scriptLocal has firmware go on to its next device.
func scriptLocal(name string) string {
	return shebang + "echo imgbuild: " + clean(name) + " boots from its disk\nexit 1\n"
}

// scriptSaying shows a text, and gives up. It is on one line: its body is all that a person
// may see of it.
func scriptSaying(text string) string {
	return shebang + "echo " + clean(text) + " && sleep 30 && exit 1\n"
}

// clean is text that is nothing but text to iPXE.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" .,:_-/()", r) {
			return r
		}
		return '?'
	}, text)
}
