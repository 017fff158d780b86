package component

import (
	"slices"

	"github.com/imgbuild/imgbuild/builder/spec"
)

// LeftOut is what the base brings and the node goes without. A pattern is that of
// path.Match, slash by slash; it stands for what it matches and all below that.
type LeftOut struct {
	Name  string   `json:"name"`
	Paths []string `json:"paths"`         // without a leading slash
	But   []string `json:"but,omitempty"` // what stays of them
}

// The names that spec key keep knows.
const (
	keepModules = "modules"
	keepHwdb    = "hwdb"
	keepGconv   = "gconv"
	keepPerl    = "perl"
	keepPlugins = "cni-plugins"
	keepCtr     = "ctr"
)

// leftOuts is the one table of what is left out unless it is asked for.
var leftOuts = []struct {
	LeftOut
	What string // for docs/contents.md
}{
	{LeftOut{keepModules, below("usr/lib/modules/*/kernel/", deadModules), below("usr/lib/modules/*/kernel/", liveModules)},
		"kernel modules that no server, virtual machine or Kubernetes node needs: sound, media, graphics but for consoles, wireless, Bluetooth, amateur radio, joysticks, staging, …; never one that a node loads at boot, nor what another one depends on"},
	{LeftOut{keepHwdb, []string{"usr/lib/udev/hwdb.bin", "usr/lib/udev/hwdb.d"}, nil},
		"udev's hardware database: names of vendors, quirks of keyboards, mice and cameras"},
	{LeftOut{keepGconv, []string{"usr/lib/*/gconv/*"}, below("usr/lib/*/gconv/", []string{"gconv-modules*", "ANSI_X3.110.so", "CP1252.so", "ISO8859-1.so", "ISO8859-15.so", "UNICODE.so", "UTF-16.so", "UTF-32.so", "UTF-7.so"})},
		"iconv's character sets but for Unicode's, Latin-1, Latin-9 and Windows-1252"},
	{LeftOut{keepPerl, []string{"usr/share/perl/*", "usr/lib/*/perl", "usr/bin/perl5*"}, nil},
		"perl's modules beyond those of the package perl-base, which stays"},
	{LeftOut{keepPlugins, []string{"usr/lib/cni/*"}, nil}, // but for those of pluginsOf
		"CNI plugins that the pod network does not use; with cni.name none all of them stay"},
	{LeftOut{keepCtr, []string{"usr/bin/ctr"}, nil},
		"containerd's own client; crictl is on board"},
}

// deadModules are folders of the kernel's, and single modules, by their place in its tree.
// Network, storage, buses, hypervisors, InfiniBand and file systems stay but for those that
// overlays/kernel keeps from loading.
var deadModules = []string{
	"sound", "drivers/media", "drivers/staging", "drivers/soundwire", "drivers/slimbus", "drivers/comedi", "drivers/iio", "drivers/most", "drivers/greybus", "drivers/counter",
	"drivers/gpu/drm/*", "drivers/video/fbdev/*", "drivers/video/backlight",
	"drivers/bluetooth", "drivers/nfc", "drivers/net/wireless", "drivers/net/wwan", "drivers/net/ieee802154", "drivers/net/hamradio", "drivers/net/can",
	"drivers/net/arcnet", "drivers/net/wan", "drivers/net/plip", "drivers/bcma", "drivers/ssb", "drivers/isdn", "drivers/atm",
	"net/bluetooth", "net/wireless", "net/mac80211", "net/mac802154", "net/ieee802154", "net/6lowpan", "net/nfc", "net/can", "net/ax25", "net/netrom", "net/rose",
	"net/x25", "net/lapb", "net/appletalk", "net/atm", "net/batman-adv", "net/caif", "net/rfkill", "net/dccp", "net/rds", "net/tipc",
	"drivers/input/*", "drivers/hid/*", "drivers/firewire", "drivers/pcmcia", "drivers/memstick", "drivers/parport", "drivers/gnss", "drivers/w1",
	"drivers/power/supply", "drivers/platform/chrome", "drivers/platform/surface", "drivers/platform/x86", "drivers/usb/gadget", "drivers/usb/atm", "drivers/usb/image",
	"drivers/leds", "drivers/auxdisplay", "drivers/accessibility",
	"fs/cramfs", "fs/freevxfs", "fs/hfs", "fs/hfsplus", "fs/jffs2", "fs/udf",
	"fs/adfs", "fs/affs", "fs/befs", "fs/bfs", "fs/efs", "fs/hpfs", "fs/minix", "fs/omfs", "fs/qnx4", "fs/qnx6", "fs/reiserfs", "fs/romfs", "fs/sysv", "fs/ufs", "fs/zonefs",
}

// liveModules are what stays of those folders: consoles of machines, virtual ones and
// those behind a management processor, with a keyboard.
var liveModules = []string{
	"drivers/gpu/drm/*.ko*", "drivers/gpu/drm/tiny", "drivers/gpu/drm/virtio", "drivers/gpu/drm/vmwgfx", "drivers/gpu/drm/hyperv", "drivers/gpu/drm/vboxvideo",
	"drivers/gpu/drm/qxl", "drivers/gpu/drm/ast", "drivers/gpu/drm/mgag200",
	"drivers/video/fbdev/core", "drivers/video/fbdev/hyperv_fb.ko*", "drivers/video/fbdev/xen-fbfront.ko*",
	"drivers/input/*.ko*", "drivers/input/serio", "drivers/input/keyboard", "drivers/input/mouse", "drivers/input/misc/xen-kbdfront.ko*", "drivers/input/misc/uinput.ko*",
	"drivers/hid/hid.ko*", "drivers/hid/hid-generic.ko*", "drivers/hid/hid-hyperv.ko*", "drivers/hid/usbhid", // and keyboards that hid-generic leaves alone:
	"drivers/hid/hid-a4tech.ko*", "drivers/hid/hid-apple.ko*", "drivers/hid/hid-cherry.ko*", "drivers/hid/hid-chicony.ko*", "drivers/hid/hid-lenovo.ko*",
	"drivers/hid/hid-logitech*.ko*", "drivers/hid/hid-microsoft.ko*",
	"drivers/platform/x86/intel", "drivers/platform/x86/amd", "drivers/platform/x86/wmi*.ko*", "drivers/platform/x86/dell/dcdbas.ko*", "drivers/platform/x86/dell/dell_rbu.ko*",
}

// grubLeftOut is what comes with GRUB's parts, which the build reads: its programs, and what
// they would do to a running system.
var grubLeftOut = LeftOut{"grub", []string{"usr/bin/grub-*", "usr/sbin/grub-*", "usr/share/grub", "usr/lib/grub/grub-mkconfig_lib", "etc/grub.d", "etc/default/grub*",
	"usr/lib/systemd/system/grub-*", "usr/lib/systemd/system/*/grub-*", "etc/systemd/system/*/grub-*", "etc/init.d/grub-*", "etc/rc*.d/*grub-*", "usr/lib/systemd/system-sleep/grub*"}, nil}

func below(dir string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = dir + name
	}
	return out
}

// leavesOut says whether a node goes without the thing of that name. A base of the
// user's own is taken as it is.
func leavesOut(n *spec.Node, name string) bool {
	return !slices.Contains(n.Keep, name) && (n.Base.OCI == "" || name == keepCtr)
}

// LeftOuts is what a node goes without.
func LeftOuts(n *spec.Node) (out []LeftOut) {
	for _, l := range leftOuts {
		if !leavesOut(n, l.Name) {
			continue
		}
		if l.Name == keepPlugins {
			l.But = below("usr/lib/cni/", pluginsOf(n))
		}
		out = append(out, l.LeftOut)
	}
	if n.Disk.BIOS && n.Base.OCI == "" {
		out = append(out, grubLeftOut)
	}
	return out
}
