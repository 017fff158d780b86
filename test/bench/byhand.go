package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/internal/run"
)

// byHand is the peer that no tool stands in the way of: mmdebstrap, mkfs.ext4, ukify, mtools
// and sgdisk in a script, in mkosi's Debian, for the same node. Its root file system can be
// written to and has no hash tree, no two of its images are the same, nothing is verified.
const byHand = `set -e
root=/node/byhand out=/node/byhand.raw
if [ "$1" = cold ]; then
	rm -rf $root
	mmdebstrap --mode=root --variant=apt --include="$2" --skip=download/empty,essential/unlink,cleanup/apt \
		--setup-hook='mkdir -p "$1/var/cache/apt/archives/partial"; cp /node/archives/*.deb "$1/var/cache/apt/archives/" || true' \
		--customize-hook='mv "$1"/var/cache/apt/archives/*.deb /node/archives/' trixie $root /etc/apt/sources.list
	cp -a /node/extra/. $root/
else
	cp /node/extra/etc/sysctl.d/50-bench.conf $root/etc/sysctl.d/
fi
kernel=$(echo $root/boot/vmlinuz-*)
rm -f $out /node/esp.img /node/root.img
truncate -s 1600M /node/root.img
mkfs.ext4 -q -L root -d $root /node/root.img
ukify build --linux="$kernel" --initrd="$(echo $root/boot/initrd.img-*)" --cmdline='root=LABEL=root rw console=ttyS0' --output=/node/uki.efi >/dev/null 2>&1
truncate -s 256M /node/esp.img
mkfs.vfat -F 32 /node/esp.img >/dev/null
mmd -i /node/esp.img ::EFI ::EFI/BOOT
mcopy -i /node/esp.img /node/uki.efi ::EFI/BOOT/BOOTX64.EFI
truncate -s 1860M $out
sgdisk -n 1:1M:+256M -t 1:ef00 -n 2:257M:+1600M -t 2:8304 $out >/dev/null
dd if=/node/esp.img of=$out bs=1M seek=1 conv=notrunc,sparse status=none
dd if=/node/root.img of=$out bs=1M seek=257 conv=notrunc,sparse status=none
`

// byHand builds the node with the script: from its packages, or with another line in a file.
func (m *mkosi) byHand(ctx context.Context, how string, u *run.Usage) (err error) {
	if err = m.change(); err != nil {
		return err
	}
	if err = os.MkdirAll(filepath.Join(m.root, "node/archives"), 0o755); err == nil { // #nosec G301 -- a scratch folder
		*u, err = m.inside(ctx, "sh", "-c", byHand, "sh", how, strings.Join(append(m.packages, "initramfs-tools"), ","))
	}
	return err
}
