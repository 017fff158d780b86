package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/run"
)

// mkosi is the peer that does the same kind of work: the same packages, the same
// executables and container images, EROFS under dm-verity with a UKI.
type mkosi struct {
	root     string // a Debian that has mkosi in it
	packages []string
	line     int
}

const mkosiConf = `[Distribution]
Distribution=debian
Release=trixie
[Output]
Format=disk
Seed=0d7c9f3e-6c0e-4c8e-9a3e-8f6b1d0a5c11
SectorSize=512
CompressOutput=no
OutputDirectory=/node/out
[Build]
PackageCacheDirectory=/node/packages
CacheDirectory=/node/cache
[Content]
Bootable=yes
Bootloader=systemd-boot
SourceDateEpoch=1700000000
KernelCommandLine=console=ttyS0 systemd.firstboot=off systemd.volatile=overlay
RemoveFiles=/etc/ssh/ssh_host_* /var/cache/ldconfig/aux-cache /var/log/alternatives.log
ExtraTrees=/node/extra
Packages=%s
`

// makeMkosi lays out a Debian with mkosi, and the node of the worker's image as
// its input. It needs root, for the mounts of a folder to change root into.
func makeMkosi(ctx context.Context, dir, image string) (*mkosi, error) {
	m := &mkosi{root: filepath.Join(dir, "mkosi")}
	if err := run.Run(ctx, run.Cmd{Name: "mmdebstrap", Args: []string{"--variant=apt",
		"--include=mkosi,systemd-boot,systemd-repart,systemd-ukify,systemd-boot-efi,systemd-container,mtools,dosfstools,erofs-utils,kmod,cpio,zstd,ca-certificates,debian-archive-keyring,uidmap,mmdebstrap,e2fsprogs,gdisk", "trixie", m.root}}); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(strings.TrimSuffix(image, ".raw") + ".manifest.json") // #nosec G304 -- what bench just built
	if err != nil {
		return nil, err
	}
	var built builder.Manifest
	if err := json.Unmarshal(text, &built); err != nil {
		return nil, err
	}
	for _, pin := range built.Inputs {
		if pin.Kind == lock.KindBase {
			m.packages = append(m.packages, pin.Name)
		}
	}
	report, err := verify.Image(ctx, image)
	if err != nil {
		return nil, err
	}
	for file, text := range map[string]string{
		"node/mkosi.conf":                                         fmt.Sprintf(mkosiConf, strings.Join(m.packages, ",")),
		"node/mkosi.repart/00-esp.conf":                           "[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=256M\nSizeMaxBytes=256M\n",
		"node/mkosi.repart/10-root.conf":                          "[Partition]\nType=root\nFormat=erofs\nCopyFiles=/\nVerity=data\nVerityMatchKey=root\nMinimize=best\n",
		"node/mkosi.repart/20-verity.conf":                        "[Partition]\nType=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best\n",
		"node/mkosi.sandbox/etc/apt/sources.list.d/mkosi.sources": "", // instead of its own, with a suite that not every mirror has
		"node/packages/.keep":                                     "", "node/cache/.keep": "", "node/cold/.keep": "", "node/out/.keep": "",
	} {
		file = filepath.Join(m.root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { // #nosec G301 -- a scratch folder
			return nil, err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil { // #nosec G306 -- a scratch file
			return nil, err
		}
	}
	// The packages come from where mmdebstrap took them; the executables and
	// the container images from the worker's own root.
	root := report.Partitions[1]
	script := fmt.Sprintf(`set -e
sed 's|^deb |deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] |' "$2/etc/apt/sources.list" > "$2/node/mkosi.sandbox/etc/apt/sources.list"
tail -c +%d "$1" | head -c %d > "$2/node/root.erofs"
chroot "$2" fsck.erofs --extract=/node/all /node/root.erofs
mkdir -p "$2/node/extra/usr/bin" "$2/node/extra/usr/lib" "$2/node/extra/etc/sysctl.d"
for f in kubeadm kubelet kubectl crictl containerd containerd-shim-runc-v2; do mv "$2/node/all/usr/bin/$f" "$2/node/extra/usr/bin/"; done
mv "$2/node/all/usr/lib/imgbuild" "$2/node/extra/usr/lib/"
rm -rf "$2/node/all" "$2/node/root.erofs"`, root.Start+1, root.Size)
	if err := run.Run(ctx, run.Cmd{Name: "sh", Args: []string{"-c", script, "sh", image, m.root}}); err != nil {
		return nil, err
	}
	_, err = m.build(ctx, "--incremental=yes") // fills both caches
	return m, err
}

// build runs mkosi once.
func (m *mkosi) build(ctx context.Context, how ...string) (run.Usage, error) {
	return m.inside(ctx, append([]string{"mkosi", "--force"}, append(how, "build")...)...)
}

// inside runs a command in the node's folder of the Debian that has mkosi in it.
func (m *mkosi) inside(ctx context.Context, command ...string) (u run.Usage, err error) {
	const script = `unset TMPDIR; mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && mount --rbind /sys "$0/sys" &&
mount -t tmpfs tmp "$0/tmp" && cp -L /etc/resolv.conf "$0/etc/resolv.conf" && exec chroot "$0" sh -c 'cd /node && exec "$@"' sh "$@"`
	args := append([]string{"--mount", "--propagation=private", "sh", "-c", script, m.root}, command...)
	err = run.Run(ctx, run.Cmd{Name: "unshare", Args: args, Used: &u})
	return u, err
}

// change writes another line into a file of the node.
func (m *mkosi) change() error {
	m.line++
	file := filepath.Join(m.root, "node/extra/etc/sysctl.d/50-bench.conf")
	return os.WriteFile(file, fmt.Appendf(nil, "vm.max_map_count = %d\n", 262144+m.line), 0o644) // #nosec G306 -- a scratch file
}

// changed builds with another line in a file of the node, the rest from mkosi's cache.
func (m *mkosi) changed(ctx context.Context, u *run.Usage) (err error) {
	if err = m.change(); err == nil {
		*u, err = m.build(ctx, "--incremental=strict")
	}
	return err
}

// larger is changed with a file more of that many bytes that nothing compresses.
func (m *mkosi) larger(ctx context.Context, size int64, u *run.Usage) error {
	file := filepath.Join(m.root, "node/extra/usr/lib/payload")
	defer os.Remove(file) //nolint:errcheck // a scratch file
	if err := run.Run(ctx, run.Cmd{Name: "dd", Args: []string{"if=/dev/urandom", "of=" + file, "bs=1M", fmt.Sprintf("count=%d", size>>20), "status=none"}}); err != nil {
		return err
	}
	return m.changed(ctx, u)
}

// cold builds from the packages alone.
func (m *mkosi) cold(ctx context.Context, u *run.Usage) (err error) {
	*u, err = m.build(ctx, "--incremental=no", "--cache-directory=/node/cold") // its force empties the folder
	return err
}
