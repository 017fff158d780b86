package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// grow makes a tree from a map: "-> x" is a link, "dir MODE" a folder, all else a
// file's text.
func grow(t testing.TB, entries map[string]string) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for p, what := range entries {
		n := tree.Node{Mode: 0o644, Content: tree.Bytes(what)}
		var unix uint32
		if target, ok := strings.CutPrefix(what, "-> "); ok {
			n = link(target)
		} else if _, err := fmt.Sscanf(what, "dir %o", &unix); err == nil {
			n = tree.Node{Mode: fs.ModeDir | mode(unix)}
			if old, ok := tr.Get(p); ok {
				old.Mode = n.Mode
				continue
			}
		}
		if err := tr.Put(p, n); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// show tells a tree as a map in the words of grow; files that are not 0644 and
// folders that are not 0755 carry their mode.
func show(t testing.TB, tr *tree.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := tr.Walk(func(p string, n *tree.Node) error {
		switch {
		case n.Mode&fs.ModeSymlink != 0:
			out[p] = "-> " + n.Link
		case n.Mode.IsDir():
			out[p] = fmt.Sprintf("dir %04o", tree.UnixMode(n.Mode))
		default:
			text, err := tr.ReadFile(p)
			if err != nil {
				return err
			}
			out[p] = string(text)
			if unix := tree.UnixMode(n.Mode); unix != 0o644 {
				out[p] = fmt.Sprintf("%04o %s", unix, text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// debian is what a small base looks like, mistakes of package scripts included.
func debian() map[string]string {
	return map[string]string{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "lib": "-> usr/lib", "usr/sbin/init": "-> ../lib/systemd/systemd", "usr/bin/sh": "sh",
		"usr/lib/os-release": "ID=debian\n", "etc/os-release": "-> ../usr/lib/os-release",
		"usr/lib/modules/6.12.1/modules.dep": "dep", "usr/lib/modules/6.12.1/build": "-> /usr/src/x", "vmlinuz": "-> boot/vmlinuz-6.12.1",
		"boot/vmlinuz-6.12.1": "KERNEL", "boot/config-6.12.1": "CONFIG_X=y\n", "boot/System.map-6.12.1": "map",
		"etc/hostname": "builder\n", "etc/machine-id": "0123456789abcdef0123456789abcdef\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/passwd-": "old",
		"etc/apt/sources.list": "deb", "etc/fstab": "# UNCONFIGURED\n", "etc/init.d/x": "x", "etc/ssh/sshd_config": "c",
		"root": "dir 0700", "root/.bashrc": "b", "home/user/x": "x", "srv": "dir 0755", "opt/x": "x", "tmp/left": "x", "run/lock/x": "x", "dev/null": "x", "proc": "dir 0555", "sys": "dir 0555",
		"var/lib/dpkg/status": "Package: x\n", "var/lib/dpkg/lock": "", "var/lib/dpkg/status-old": "old", "var/lib/systemd/random-seed": "seed",
		"var/log": "dir 2755", "var/log/dpkg.log": "log", "var/tmp": "dir 1777", "var/run": "-> /run", "var/lib/apt/lists/x": "x", "var/cache/apt/x": "x", "var/cache/debconf/x": "x",
		"var/lib/odd name %n\n": "dir 0700", "var/lib/systemd": "dir 0755",
	}
}

const varConf = `# What the packages of the base expect below /var, which is made at first boot.
d /var/cache 0755 0 0 -
d /var/lib 0755 0 0 -
d /var/lib/odd\x20name\x20%%n\x0a 0700 0 0 -
d /var/lib/systemd 0755 0 0 -
d /var/log 2755 0 0 -
L /var/run - - - - /run
d /var/tmp 1777 0 0 -
L+ /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg
d /var/roothome 0700 0 0 -
d /var/home 0755 0 0 -
d /var/opt 0755 0 0 -
d /var/srv 0755 0 0 -
`

func TestSeal(t *testing.T) {
	tr := grow(t, debian())
	k, err := Seal(tr)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := k.Image.Open()
	if image, _ := io.ReadAll(r); k.Release != "6.12.1" || string(image) != "KERNEL" {
		t.Errorf("kernel %s with image %q", k.Release, image)
	}
	want := map[string]string{
		"bin": "-> usr/bin", "sbin": "-> usr/sbin", "lib": "-> usr/lib", "usr/sbin/init": "-> ../lib/systemd/systemd", "usr/bin/sh": "sh",
		"usr/lib/os-release": "ID=debian\n", "etc/os-release": "-> ../usr/lib/os-release",
		"usr/lib/modules/6.12.1/modules.dep": "dep", "usr/lib/modules/6.12.1/config": "CONFIG_X=y\n",
		"etc/machine-id": "0444 uninitialized\n", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/ssh/sshd_config": "c",
		"etc/fstab":                    "# everything is mounted by units; see imgbuild's documentation of the node\n",
		"usr/lib/sysimage/dpkg/status": "Package: x\n", "usr/lib/tmpfiles.d/imgbuild-var.conf": varConf,
		"root": "-> var/roothome", "home": "-> var/home", "opt": "-> var/opt", "srv": "-> var/srv", "tmp": "dir 1777",
	}
	for _, p := range []string{".", "usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib/modules", "usr/lib/modules/6.12.1", "usr/lib/sysimage", "usr/lib/sysimage/dpkg", "usr/lib/tmpfiles.d",
		"usr/lib/imgbuild", "etc", "etc/ssh", "etc/kubernetes", "etc/cni", "etc/cni/net.d", "var", "boot", "dev", "proc", "run", "sys", "efi", "mnt"} {
		want[p] = "dir 0755"
	}
	got := show(t, tr)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSealRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		add    map[string]string
		remove []string
		want   string
	}{
		"no kernel":        {nil, []string{"usr/lib/modules"}, "one kernel below /usr/lib/modules, found 0"},
		"two kernels":      {map[string]string{"usr/lib/modules/6.13.0/modules.dep": ""}, nil, "found 2 [6.12.1 6.13.0]"},
		"no image":         {nil, []string{"boot/vmlinuz-6.12.1"}, "neither /boot/vmlinuz-6.12.1 nor /usr/lib/modules/6.12.1/vmlinuz"},
		"no configuration": {nil, []string{"boot/config-6.12.1"}, "no configuration of kernel 6.12.1"},
	} {
		t.Run(name, func(t *testing.T) {
			entries := debian()
			for p, what := range c.add {
				entries[p] = what
			}
			tr := grow(t, entries)
			for _, p := range c.remove {
				tr.Remove(p)
			}
			if _, err := Seal(tr); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestSealHostNQN: what nvme-cli's postinst made is in no image; the rest of its configuration is.
func TestSealHostNQN(t *testing.T) {
	entries := debian()
	for _, name := range []string{"hostid", "hostnqn", "discovery.conf"} {
		entries["etc/nvme/"+name] = "of the build host\n"
	}
	tr := grow(t, entries)
	if _, err := Seal(tr); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"hostid": false, "hostnqn": false, "discovery.conf": true} {
		if _, is := tr.Get("etc/nvme/" + name); is != want {
			t.Errorf("/etc/nvme/%s is there: %v, want %v", name, is, want)
		}
	}
}

// TestSealInitiator: what open-iscsi's postinst made is in no image; each node makes a name, and keeps it.
func TestSealInitiator(t *testing.T) {
	entries := debian()
	entries["etc/iscsi/initiatorname.iscsi"] = "InitiatorName=iqn.1993-08.org.debian:01:of-the-build-host\n"
	entries["usr/lib/open-iscsi/startup-checks.sh"] = "x"
	tr := grow(t, entries)
	if _, err := Seal(tr); err != nil {
		t.Fatal(err)
	}
	got := show(t, tr)
	if name := got["etc/iscsi/initiatorname.iscsi"]; name != "-> ../../var/lib/iscsi/initiatorname.iscsi" {
		t.Errorf("the name is %q", name)
	}
	if line := "f /var/lib/iscsi/initiatorname.iscsi 0600 0 0 - GenerateName=yes\n"; got["usr/lib/tmpfiles.d/imgbuild-var.conf"] != varConf+line {
		t.Errorf("tmpfiles: %s", got["usr/lib/tmpfiles.d/imgbuild-var.conf"])
	}
}

// TestSealCron: a cron that was asked for has its tasks, but for those of package tools that are not there.
func TestSealCron(t *testing.T) {
	for _, cron := range []bool{false, true} {
		entries := debian()
		for _, name := range []string{"cron.d/sysstat", "cron.daily/logrotate", "cron.daily/apt-compat", "cron.daily/dpkg"} {
			entries["etc/"+name] = "x"
		}
		if cron {
			entries["usr/sbin/cron"] = "x"
		}
		tr := grow(t, entries)
		if _, err := Seal(tr); err != nil {
			t.Fatal(err)
		}
		for p, want := range map[string]bool{"etc/cron.d/sysstat": cron, "etc/cron.daily/logrotate": cron, "etc/cron.daily/apt-compat": false, "etc/cron.daily/dpkg": false, "etc/cron.daily": cron} {
			if _, ok := tr.Get(p); ok != want {
				t.Errorf("%s is there: %v, with cron: %v", p, ok, cron)
			}
		}
	}
}

// TestSealOtherBase: a base that keeps kernel and configuration beside the modules, as Fedora's does.
func TestSealOtherBase(t *testing.T) {
	tr := grow(t, map[string]string{"usr/lib/modules/6.17.0/vmlinuz": "K", "usr/lib/modules/6.17.0/config": "C", "usr/lib/os-release": "ID=x\n"})
	k, err := Seal(tr)
	if err != nil || k.Release != "6.17.0" {
		t.Fatal(k, err)
	}
	if _, ok := tr.Get("usr/lib/modules/6.17.0/vmlinuz"); ok {
		t.Error("the kernel lies in the root as well as in the UKI")
	}
	if text, err := tr.ReadFile("usr/lib/modules/6.17.0/config"); err != nil || string(text) != "C" {
		t.Error(string(text), err)
	}
}
