package source

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/archivetest"
	"github.com/imgbuild/imgbuild/internal/ldcache"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// difference is one line of testdata/differences.yaml.
type difference struct {
	Path string `json:"path"` // as path.Match has it; "/..." at its end is all below, and a name alone before it is any folder of that name
	How  string `json:"how"`  // added, missing, changed, reordered lines, or renumbered accounts, as seen from mmdebstrap's tree
	Why  string `json:"why"`
	Base string `json:"base"` // where it is of one base alone
	Node string `json:"node"` // where it is of one node alone, as basesOf names it
	used bool
}

// beside are packages that operators like to add.
const beside = "cifs-utils,curl,htop,ipvsadm,jq,less,lldpd,lvm2,multipath-tools,nano,nfs-common,open-iscsi,open-vm-tools,prometheus-node-exporter," +
	"qemu-guest-agent,rsyslog,tcpdump,traceroute,vim,vim-tiny,xfsprogs,xz-utils"

// besideDebian are others, of Debian.
const besideDebian = "acl,apparmor-utils,auditd,bash-completion,bind9-dnsutils,bird2,bridge-utils,conntrack,cron,cryptsetup,dmidecode,ethtool," +
	"freeipmi-tools,frr,gcc,git,glusterfs-client,gnupg,haproxy,hdparm,infiniband-diags,iotop,ipmitool,ipset,iputils-ping,irqbalance,keepalived,krb5-user," +
	"lm-sensors,locales,logrotate,lsof,make,mdadm,net-tools,nfs-kernel-server,numactl,nvme-cli,parted,pciutils,perl,python3,rdma-core,rsync," +
	"smartmontools,snmpd,strace,sudo,sysstat,tmux,usbutils,wget,wireguard-tools"

// TestAgainstMmdebstrap lays out bases both ways, in this process and by mmdebstrap, and
// compares the trees entry by entry. Every difference must be explained, and every
// explanation needed.
func TestAgainstMmdebstrap(t *testing.T) {
	if testing.Short() {
		t.Skip("lays out bases: left out by -short")
	}
	if err := run.Need(DebianTools); err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile("testdata/differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var explained []*difference
	if err := yaml.UnmarshalStrict(text, &explained); err != nil {
		t.Fatal(err)
	}
	opt := Options{Arch: "amd64", Store: cache(t), Report: report.Discard{}}
	for _, base := range images.Names() {
		t.Run(base, func(t *testing.T) {
			mirror := mirrorOf(t, base)
			all := basesOf(base)
			all["worker, BIOS"] = spec.Input{Role: "worker", Sets: []string{"disk.bios=true"}}
			for name, in := range all {
				t.Run(name, func(t *testing.T) {
					compareBases(t, name, opt, pinsOf(t, opt, base, mirror, in), explained)
				})
			}
			for _, d := range explained {
				if !d.used && d.Base == base {
					t.Errorf("differences.yaml explains %s %s, which does not differ in %s", d.How, d.Path, base)
				}
			}
		})
	}
	for _, d := range explained {
		if !d.used && d.Base == "" {
			t.Errorf("differences.yaml explains %s %s, which does not differ", d.How, d.Path)
		}
	}
	t.Logf("%d differences are explained", len(explained))
}

// mirrorOf is where a base's packages come from in a test: for Debian what the host says.
func mirrorOf(t *testing.T, base string) string {
	t.Helper()
	def, err := images.Find(base)
	if err != nil {
		t.Fatal(err)
	}
	if def.Distribution == "Ubuntu" {
		return archivetest.Ubuntu(t, def.Suite)
	}
	return ""
}

// pinsOf are the packages of a node on a base.
func pinsOf(t *testing.T, opt Options, base, mirror string, in spec.Input) []lock.Pin {
	t.Helper()
	in.Sets = append(slices.Clone(in.Sets), "base.name="+base, "arch="+opt.Arch)
	if i := slices.Index(in.Sets, "bootstrap=cluster-api"); i >= 0 && base != "debian-trixie" {
		in.Sets[i] = "base.packages=cloud-init,ignition" // the packages without the rest
	}
	b, err := debianBase(lock.Request{Name: base}, opt.Arch)
	if err != nil {
		t.Fatal(err)
	}
	b.Mirror, b.Packages = mirror, packagesOf(t, in)
	if slices.Contains(b.Packages, "chrony") { // no node has it yet: one program keeps the time
		b.Packages = slices.DeleteFunc(b.Packages, func(p string) bool { return p == "systemd-timesyncd" })
	}
	pins, err := b.Resolve(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return pins
}

// TestUbuntuBase lays out Ubuntu's bases: every script was read, the kernel's modules of all its packages are
// listed, and are what the initrd needs.
func TestUbuntuBase(t *testing.T) {
	if testing.Short() {
		t.Skip("lays out bases: left out by -short")
	}
	const base = "ubuntu-noble"
	opt := Options{Arch: "amd64", Store: cache(t), Report: report.Discard{}}
	mirror := mirrorOf(t, base)
	for name, in := range basesOf(base) {
		t.Run(name, func(t *testing.T) {
			pins := pinsOf(t, opt, base, mirror, in)
			layers, err := New(opt).Base(t.Context(), pins)
			if err != nil {
				t.Fatal(err)
			}
			root := union(t, layers)
			release, err := root.ReadFile("etc/os-release")
			if err != nil || !strings.Contains(string(release), "VERSION_CODENAME=noble\n") {
				t.Errorf("%s, %v", release, err)
			}
			for _, p := range pins {
				if p.Name == "systemd-repart" {
					t.Error("systemd-repart is a package of its own now: images/ubuntu-noble/base.yaml need not rename it")
				}
			}
			extra := slices.ContainsFunc(pins, func(p lock.Pin) bool { return strings.HasPrefix(p.Name, "linux-modules-extra-") })
			checkModules(t, root, map[string]bool{"erofs": true, "dm-verity": true, "overlay": true, "xen-tpmfront": extra})
			if n, ok := root.Get("lib"); !ok || n.Link != "usr/lib" {
				t.Errorf("/lib is %+v", n)
			}
		})
	}
}

// checkModules wants every module of the tree's one kernel to be listed, and those of these names to be there.
func checkModules(t *testing.T, root *tree.Tree, there map[string]bool) {
	t.Helper()
	files := map[string]bool{}
	dir := ""
	for _, p := range root.Paths() {
		if strings.HasPrefix(p, "usr/lib/modules/") && strings.HasSuffix(p, ".ko.zst") {
			dir = strings.Join(strings.Split(p, "/")[:4], "/")
			files[strings.TrimPrefix(p, dir+"/")] = true
		}
	}
	dep, err := root.ReadFile(dir + "/modules.dep")
	if err != nil {
		t.Fatal(err)
	}
	lines, found := 0, map[string]bool{}
	for line := range strings.Lines(string(dep)) {
		file, _, _ := strings.Cut(line, ":")
		lines++
		found[strings.TrimSuffix(path.Base(file), ".ko.zst")] = files[file]
	}
	if lines != len(files) {
		t.Errorf("%d modules, and %d are listed", len(files), lines)
	}
	for name, want := range there {
		if found[name] != want {
			t.Errorf("module %s is there: %v, want %v", name, found[name], want)
		}
	}
}

// TestArm64Base lays the same bases out for another processor than the oracle can run on:
// every script of its packages was read, and its programs and libraries are its own.
func TestArm64Base(t *testing.T) {
	if testing.Short() {
		t.Skip("lays out bases: left out by -short")
	}
	opt := Options{Arch: "arm64", Store: cache(t), Report: report.Discard{}}
	for name, in := range basesOf("debian-trixie") {
		t.Run(name, func(t *testing.T) {
			layers, err := New(opt).Base(t.Context(), pinsOf(t, opt, "debian-trixie", "", in))
			if err != nil {
				t.Fatal(err)
			}
			root := union(t, layers)
			libraries, machine, err := ldcache.Scan(root)
			if err != nil || machine != elf.EM_AARCH64 || len(libraries) < 50 {
				t.Errorf("%d libraries for %v, %v", len(libraries), machine, err)
			}
			for _, file := range []string{"usr/bin/bash", "usr/lib/systemd/systemd", "usr/lib/ld-linux-aarch64.so.1"} {
				data, err := root.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if f, err := elf.NewFile(bytes.NewReader(data)); err != nil || f.Machine != elf.EM_AARCH64 {
					t.Errorf("%s: %v, %v", file, f, err)
				}
			}
		})
	}
}

// basesOf are those that are laid out by more than one.
func basesOf(base string) map[string]spec.Input {
	all := map[string]spec.Input{
		"master":              {Role: "master"},
		"worker, Cluster API": {Role: "worker", Sets: []string{"bootstrap=cluster-api"}},
		"master, all beside":  {Role: "master", Sets: []string{"base.kernel=generic", "ssh.enabled=true", "base.packages=" + beside}},
	}
	if base == "debian-trixie" {
		all["worker, all beside"] = spec.Input{Role: "worker", Sets: []string{"base.kernel=generic", "base.packages=" + besideDebian}}
		all["worker, chrony"] = spec.Input{Role: "worker", Sets: []string{"base.packages=chrony"}}
	}
	return all
}

func union(t *testing.T, layers []string) *tree.Tree {
	t.Helper()
	out := tree.New()
	for _, l := range layers {
		if err := out.ApplyTar(l); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// cache is the one of everyday: what is in it already need not be fetched and laid out again.
func cache(t *testing.T) *store.Store {
	t.Helper()
	dir, err := store.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compareBases(t *testing.T, node string, opt Options, pins []lock.Pin, explained []*difference) {
	trees := map[string]*tree.Tree{}
	for _, by := range []string{ByMmdebstrap, ByImgbuild} {
		begin := repro.Now()
		opt.BaseBuilder = by
		layers, err := New(opt).Base(t.Context(), pins)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d layers in %v", by, len(layers), repro.Now().Sub(begin))
		trees[by] = union(t, layers)
	}
	for _, line := range compareTrees(t, trees[ByMmdebstrap], trees[ByImgbuild]) {
		how, p, _ := strings.Cut(line, " ")
		p, _, _ = strings.Cut(p, ": ")
		known := false
		for _, d := range explained {
			if d.explains(how) && (d.Base == "" || d.Base == pins[0].Request) && (d.Node == "" || d.Node == node) && d.matches(p) {
				d.used, known = true, true
			}
		}
		if !known {
			t.Error(line)
		}
	}
}

// explains says whether the line is for such a difference: one for a change is for other numbers alone, too.
func (d *difference) explains(how string) bool {
	return d.How == how || d.How == "changed" && how == "renumbered"
}

func (d *difference) matches(p string) bool {
	if above, ok := strings.CutSuffix(d.Path, "/..."); ok {
		for p != "." && p != "/" {
			if match, _ := path.Match(above, p); match || above == path.Base(p) {
				return true
			}
			p = path.Dir(p)
		}
		return false
	}
	match, _ := path.Match(d.Path, p)
	return match
}

// compareTrees lists what differs, as "added|missing|changed|reordered|renumbered path: what".
func compareTrees(t *testing.T, want, got *tree.Tree) (out []string) {
	named := [2]names{namesOf(t, want), namesOf(t, got)}
	for _, p := range slices.Compact(slices.Sorted(slices.Values(append(want.Paths(), got.Paths()...)))) {
		a, inWant := want.Get(p)
		b, inGot := got.Get(p)
		switch {
		case !inWant:
			out = append(out, "added /"+p+": "+describe(t, b))
		case !inGot:
			out = append(out, "missing /"+p+": "+describe(t, a))
		default:
			if x, y := describe(t, a), describe(t, b); x != y && reordered(t, a, b) {
				out = append(out, "reordered /"+p+": "+x+" → "+y)
			} else if x != y && named[0].describe(t, p, a) == named[1].describe(t, p, b) {
				out = append(out, "renumbered /"+p+": "+x+" → "+y)
			} else if x != y {
				out = append(out, "changed /"+p+": "+x+" → "+y)
			}
		}
	}
	return out
}

// reordered says whether two files differ in the order of their lines and in nothing else.
func reordered(t *testing.T, a, b *tree.Node) bool {
	if a.Content == nil || b.Content == nil {
		return false
	}
	x, y := *a, *b
	x.Content, y.Content = nil, nil
	return describe(t, &x) == describe(t, &y) && slices.Equal(sortedLines(t, a), sortedLines(t, b))
}

// names are a tree's users and groups by their numbers.
type names struct{ users, groups map[string]string }

func namesOf(t *testing.T, root *tree.Tree) (n names) {
	t.Helper()
	for file, to := range map[string]*map[string]string{"etc/passwd": &n.users, "etc/group": &n.groups} {
		text, err := root.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		*to = map[string]string{}
		for line := range strings.Lines(string(text)) {
			if f := strings.Split(line, ":"); len(f) > 2 {
				(*to)[f[2]] = f[0]
			}
		}
	}
	return n
}

// describe tells of an entry with names for numbers; of the lists of accounts in whatever order they come.
func (m names) describe(t *testing.T, p string, n *tree.Node) string {
	plain := *n
	plain.UID, plain.GID = 0, 0
	owner := m.users[strconv.Itoa(n.UID)] + ":" + m.groups[strconv.Itoa(n.GID)] + " "
	if p != "etc/passwd" && p != "etc/group" {
		return owner + describe(t, &plain)
	}
	lines := sortedLines(t, n)
	for i, line := range lines {
		f := strings.Split(line, ":")
		f[2] = ""
		if p == "etc/passwd" {
			f[3] = m.groups[f[3]]
		}
		lines[i] = strings.Join(f, ":")
	}
	slices.Sort(lines)
	plain.Content = nil
	return owner + describe(t, &plain) + strings.Join(lines, "")
}

func sortedLines(t *testing.T, n *tree.Node) []string {
	r, err := n.Content.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(strings.Lines(string(data)))
}

func describe(t *testing.T, n *tree.Node) string {
	s := fmt.Sprintf("%v %d:%d", n.Mode, n.UID, n.GID)
	if n.Link != "" {
		s += " -> " + n.Link
	}
	if n.Rdev != 0 {
		s += fmt.Sprintf(" dev %d", n.Rdev)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Xattrs)) {
		s += fmt.Sprintf(" %s=%x", key, n.Xattrs[key])
	}
	if n.Content != nil {
		r, err := n.Content.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // read only
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %d bytes %x", n.Content.Size(), sum.Sum(nil)[:6])
	}
	return s
}
