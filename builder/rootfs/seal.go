package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// Kernel is the kernel that a sealed tree boots.
type Kernel struct {
	Release string // as uname -r says it
	Image   tree.Content
}

// dropped is what a base brings and a node must not have: identity, caches, the
// package tools' working files, and what only an installer or sysvinit reads.
var dropped = []string{
	"vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old", // links into /boot
	"etc/hostname", "etc/machine-info", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
	"etc/.pwd.lock", "etc/.resolv.conf.systemd-resolved.bak", "etc/fstab", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/apt",
	"etc/cron.daily/apt-compat", "etc/cron.daily/dpkg", "etc/init.d", "etc/rc0.d", "etc/rc1.d", "etc/rc2.d", "etc/rc3.d", "etc/rc4.d", "etc/rc5.d", "etc/rc6.d", "etc/rcS.d",
	"usr/lib/sysctl.d/99-protect-links.conf", // of Ubuntu's procps: weaker than the node's own, and after it
	"etc/nvme/hostid", "etc/nvme/hostnqn",    // made by nvme-cli's postinst, the same in every node
	"etc/initramfs-tools", "etc/kernel", "usr/share/initramfs-tools", "usr/lib/klibc", "usr/share/zsh", "usr/share/bug", "usr/share/perl5/Debian",
	"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old", "var/lib/dpkg/available-old", "var/lib/dpkg/diversions-old",
	"var/lib/dpkg/triggers/Lock", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/dbus/machine-id",
}

// timed is dropped where no cron reads it: systemd has timers for what of it is of use.
var timed = []string{"etc/cron.d", "etc/cron.daily"}

// emptied are folders that the running system fills itself.
var emptied = []string{"boot", "dev", "proc", "run", "sys", "tmp", "root", "home", "opt", "srv"}

// links are the folders of the root that live on /var.
var links = map[string]string{"root": "var/roothome", "home": "var/home", "opt": "var/opt", "srv": "var/srv"}

// initiator is where a node keeps the name that iSCSI targets know it by.
const initiator = "var/lib/iscsi/initiatorname.iscsi"

// dpkgDir is where the package database lies in an image whose /var is not its own.
const dpkgDir = "usr/lib/sysimage/dpkg"

// Seal turns a base's tree into the root of an immutable node: read-only
// throughout, /var empty and described by tmpfiles.d(5), nothing unique in it.
// It returns the kernel that it took out of /boot.
func Seal(t *tree.Tree) (Kernel, error) {
	k, err := takeKernel(t)
	if err != nil {
		return Kernel{}, err
	}
	for _, p := range dropped {
		t.Remove(p)
	}
	if _, ok := t.Get("usr/sbin/cron"); !ok {
		for _, p := range timed {
			t.Remove(p)
		}
	}
	for _, p := range t.Paths() {
		if strings.HasPrefix(p, "etc/ssh/ssh_host_") { // made by openssh-server's postinst, the same in every node
			t.Remove(p)
		}
	}
	if err := move(t, "var/lib/dpkg", dpkgDir); err != nil {
		return Kernel{}, err
	}
	lines := varTmpfiles(t)
	if _, ok := t.Get("usr/lib/open-iscsi/startup-checks.sh"); ok { // it makes the name, unlike that of any other node
		lines += "f /" + initiator + " 0600 0 0 - GenerateName=yes\n"
		if err := t.Put("etc/iscsi/initiatorname.iscsi", tree.Node{Mode: fs.ModeSymlink | 0o777, Link: "../../" + initiator}); err != nil {
			return Kernel{}, err
		}
	}
	for _, p := range append([]string{"var"}, emptied...) {
		t.Remove(p)
	}
	s := &sealer{tree: t}
	s.dirs("var", "boot", "dev", "proc", "run", "sys", "efi", "mnt", "etc/kubernetes", "etc/cni/net.d", "usr/lib/imgbuild")
	s.put("tmp", tree.Node{Mode: fs.ModeDir | fs.ModeSticky | 0o777})
	for p, target := range links {
		s.put(p, tree.Node{Mode: fs.ModeSymlink | 0o777, Link: target})
	}
	s.text("etc/machine-id", 0o444, "uninitialized\n")
	s.text("etc/fstab", 0o644, "# everything is mounted by units; see imgbuild's documentation of the node\n")
	s.text("usr/lib/tmpfiles.d/imgbuild-var.conf", 0o644, lines)
	return k, s.err
}

// takeKernel finds the one kernel of the base, leaves its configuration where
// kubeadm's SystemVerification looks, and takes the image itself out.
func takeKernel(t *tree.Tree) (Kernel, error) {
	var releases []string
	for _, p := range t.Paths() {
		if path.Dir(p) == "usr/lib/modules" {
			releases = append(releases, path.Base(p))
		}
	}
	if len(releases) != 1 {
		return Kernel{}, fmt.Errorf("the base must have one kernel below /usr/lib/modules, found %d %v", len(releases), releases)
	}
	k := Kernel{Release: releases[0]}
	modules := path.Join("usr/lib/modules", k.Release)
	for _, p := range []string{"boot/vmlinuz-" + k.Release, modules + "/vmlinuz"} {
		if _, n, err := t.Resolve(p); err == nil && n.Mode.IsRegular() {
			k.Image = n.Content
			break
		}
	}
	if k.Image == nil {
		return Kernel{}, fmt.Errorf("the base has modules for kernel %s but neither /boot/vmlinuz-%s nor /%s/vmlinuz", k.Release, k.Release, modules)
	}
	t.Remove(modules + "/vmlinuz")
	t.Remove(modules + "/build")
	t.Remove(modules + "/source")
	if _, n, err := t.Resolve("boot/config-" + k.Release); err == nil {
		if err := t.Put(modules+"/config", *n); err != nil {
			return Kernel{}, err
		}
	}
	if _, ok := t.Get(modules + "/config"); !ok {
		return Kernel{}, fmt.Errorf("the base has no configuration of kernel %s, which kubeadm's preflight reads", k.Release)
	}
	return k, nil
}

func move(t *tree.Tree, from, to string) error {
	for _, p := range t.Paths() {
		rest, ok := strings.CutPrefix(p, from)
		if !ok || (rest != "" && rest[0] != '/') {
			continue
		}
		n, _ := t.Get(p)
		if err := t.Put(to+rest, *n); err != nil {
			return err
		}
	}
	t.Remove(from)
	return nil
}

// varTmpfiles describes the folders that packages expect below /var.
func varTmpfiles(t *tree.Tree) string {
	var b strings.Builder
	b.WriteString("# What the packages of the base expect below /var, which is made at first boot.\n")
	_ = t.Walk(func(p string, n *tree.Node) error {
		switch {
		case !strings.HasPrefix(p, "var/"), strings.HasPrefix(p, "var/cache/apt"), strings.HasPrefix(p, "var/lib/apt"), strings.HasPrefix(p, "var/cache/debconf"):
		case n.Mode.IsDir():
			fmt.Fprintf(&b, "d /%s %04o %d %d -\n", tmpfilesWord(p), tree.UnixMode(n.Mode), n.UID, n.GID)
		case n.Mode&fs.ModeSymlink != 0:
			fmt.Fprintf(&b, "L /%s - - - - %s\n", tmpfilesWord(p), tmpfilesWord(n.Link))
		}
		return nil
	})
	b.WriteString("L+ /var/lib/dpkg - - - - ../../" + dpkgDir + "\n")
	b.WriteString("d /var/roothome 0700 0 0 -\nd /var/home 0755 0 0 -\nd /var/opt 0755 0 0 -\nd /var/srv 0755 0 0 -\n")
	return b.String()
}

// tmpfilesWord writes a path as one word of a tmpfiles.d(5) line: its specifiers,
// quotes and white space taken literally.
func tmpfilesWord(p string) string {
	var b strings.Builder
	for _, c := range []byte(p) {
		switch {
		case c == '%':
			b.WriteString("%%")
		case c <= ' ', c == 0x7f, c == '\\', c == '"', c == '\'':
			fmt.Fprintf(&b, "\\x%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// special are the mode bits that io/fs keeps elsewhere than stat(2).
var special = map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky}

// sealer puts entries and keeps the first error.
type sealer struct {
	tree *tree.Tree
	err  error
}

func (s *sealer) put(p string, n tree.Node) { s.err = errors.Join(s.err, s.tree.Put(p, n)) }

func (s *sealer) dirs(paths ...string) {
	for _, p := range paths {
		if _, ok := s.tree.Get(p); !ok {
			s.put(p, tree.Node{Mode: fs.ModeDir | 0o755})
		}
	}
}

func (s *sealer) text(p string, perm fs.FileMode, text string) {
	s.put(p, tree.Node{Mode: perm, Content: tree.Bytes(text)})
}
