#!/bin/sh
# Installs the Debian packages that building, booting and testing need, if one is missing.
set -eu
need=""
want() { # want COMMAND-OR-FILE PACKAGE
	case "$1" in
	/*) [ -e "$1" ] || need="$need $2" ;;
	*) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || need="$need $2" ;;
	esac
}
want go golang-go
want gcc gcc
want /usr/include/stdlib.h libc6-dev
if [ "$(uname -m)" = x86_64 ]; then # nodes of the other architecture
	want aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
	want /usr/aarch64-linux-gnu/include/stdlib.h libc6-dev-arm64-cross
fi
want mmdebstrap mmdebstrap # tests, and base.builder: mmdebstrap
want /usr/share/debootstrap/scripts/gutsy debootstrap # knows a mirror of Ubuntu, for tests
want newuidmap uidmap
want dpkg-deb dpkg
want /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
want arch-test arch-test
want qemu-system-x86_64 qemu-system-x86
want qemu-system-aarch64 qemu-system-arm
want qemu-img qemu-utils
want "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketimeMT.so.1" libfaketime
want zstd zstd
want /usr/share/OVMF/OVMF_CODE_4M.fd ovmf
want /usr/share/AAVMF/AAVMF_CODE.fd qemu-efi-aarch64
want fsck.erofs erofs-utils
want veritysetup cryptsetup-bin
want fsck.vfat dosfstools
want mcopy mtools
want sgdisk gdisk
want xorriso xorriso
want isoinfo genisoimage
want skopeo skopeo
want sfdisk fdisk
want objdump binutils
want strace strace
want systemd-dissect systemd-container
want nft nftables
want ip iproute2
want /usr/lib/dracut/modules.d/30ignition/ignition ignition
want openssl openssl
want /usr/lib/ipxe/snponly.efi ipxe
want /usr/lib/grub/i386-pc/kernel.img grub-pc-bin
want grub-mkimage grub-common
want softhsm2-util softhsm2
want pkcs11-tool opensc
want e2fsck e2fsprogs
want modprobe kmod
want chromium-headless-shell chromium-headless-shell
want shellcheck shellcheck
want virt-xml-validate libvirt-clients
want xmllint libxml2-utils
if apt-cache show docker-registry >/dev/null 2>&1; then # not every Debian has it
	want docker-registry docker-registry
fi
[ -z "$need" ] && exit 0
echo "installing:$need" >&2
if [ "$(id -u)" -eq 0 ]; then
	sudo=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
	sudo="sudo"
else
	echo "missing packages; as root run: apt-get install --no-install-recommends$need" >&2
	exit 1
fi
# shellcheck disable=SC2086 # a list of words on purpose
{ $sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends $need; } >&2
case "$need" in
*docker-registry*) # tests start their own, and nobody asked for one on port 5000
	if [ -d /run/systemd/system ]; then $sudo systemctl disable --now docker-registry >&2; fi
	;;
esac
