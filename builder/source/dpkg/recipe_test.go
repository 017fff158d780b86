package dpkg

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// TestRecipes lays out a base that has something for every part of this package.
func TestRecipes(t *testing.T) {
	var layers, top bytes.Buffer
	below := tree.New()
	var packages []*Package
	for _, made := range madeUp(t) {
		opened, err := deb.Open(debOf(t, made.files, made.members))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "layer.tar")
		write(t, file, &layers, func(w io.Writer) error { return Layer(opened, nil, w) })
		files := []string{file}
		p, err := New(opened, file)
		if err != nil {
			t.Fatal(err)
		}
		if IsKernel(p.Name) {
			indices, err := p.Indices()
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file+".indices")
			write(t, files[1], &layers, indices.WriteTar)
			if p, err = New(opened, files...); err != nil {
				t.Fatal(err)
			}
		}
		for _, f := range files {
			if err := below.ApplyTar(f); err != nil {
				t.Fatal(err)
			}
		}
		if made.deeds != nil {
			p = fake(t, p, Entry{Package: p.Name, Deeds: *made.deeds})
		}
		packages = append(packages, p)
	}
	laid, err := Lay(packages)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(t.TempDir(), "top.tar"), &top, func(w io.Writer) error { return laid.WriteDelta(w, below) })
	for name, c := range map[string]struct{ recorded, got string }{"LayerRecipe": {LayerRecipe, digest(layers.String())}, "topRecipe": {topRecipe, digest(top.String())}} {
		if got := c.got[:16]; got != c.recorded {
			t.Errorf("the layout is another than that of %s = %q: if that is meant, set it to %q", name, c.recorded, got)
		}
	}
}

// write keeps what fn writes in a file, and appends it to all.
func write(t *testing.T, file string, all *bytes.Buffer, fn func(io.Writer) error) {
	t.Helper()
	f, err := os.Create(file)
	if err == nil {
		err = fn(io.MultiWriter(f, all))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

type madeUpPackage struct {
	files, members map[string]string
	deeds          *Deeds
}

func madeUp(t *testing.T) []madeUpPackage {
	read := func(file string) string {
		text, err := os.ReadFile(filepath.Join("../../../internal", file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	control := func(name, version, more string) map[string]string {
		return map[string]string{"control": "Package: " + name + "\nVersion: " + version + "\nArchitecture: amd64\n" + more + "Description: made up\n of nothing\n"}
	}
	base := map[string]string{"etc": "/", "usr/bin": "/", "usr/lib": "/", "bin": "-> usr/bin", "lib": "-> usr/lib", "usr/lib32/x": "1", "etc/nsswitch.conf": "hosts: files dns\n",
		"etc/shells": "# shells\n", "usr/share/debianutils/shells": "/bin/sh\n", "usr/share/debianutils/shells.d/a": "/usr/bin/rsh # a shell\n", "usr/bin/sh": "1", "usr/bin/rsh": "1",
		"usr/share/base-passwd/passwd.master": passwd, "usr/share/base-passwd/group.master": "root:*:0:\nmail:*:8:\nshadow:*:42:\n",
		"usr/share/pam-configs/a": "Name: A\nDefault: yes\nPriority: 5\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_a.so x\nAuth-Initial:\n\t[success=end]\tpam_a.so\nSession-Type: Additional\nSession:\n\trequired\tpam_s.so\n"}
	for _, kind := range []string{"auth", "account", "password", "session", "session-noninteractive"} {
		base["usr/share/pam/common-"+kind] = "# " + kind + "\n$" + kind + "_primary\n# then\n$" + kind + "_additional\n"
	}
	tool := map[string]string{
		"etc/ld.so.conf": "/usr/lib/x\n", "usr/lib/x/liba.so.1.2": library("liba.so.1"), "usr/lib/x/liba.so.1": "-> liba.so.1.2", "usr/lib/x/libb.so.2": library("libb.so.2"),
		"usr/lib/udev/hwdb.d/20-a.hwdb": read("hwdb/testdata/20-a.hwdb"), "etc/udev/hwdb.d/60-b.hwdb": read("hwdb/testdata/60-b.hwdb"),
		"usr/sbin/update-ca-certificates": "openssl rehash", "usr/share/ca-certificates/x/A (1).crt": certificate(t),
		"usr/lib/systemd/system/a.service": "[Install]\nWantedBy=multi-user.target\nAlias=b.service\nAlso=b@.socket\n", "usr/lib/systemd/system/b@.socket": "[Install]\nWantedBy=%i.target\nDefaultInstance=x\n",
		"usr/lib/systemd/system/off.service": "[Install]\nWantedBy=multi-user.target\n", "usr/lib/systemd/user/u.service": "[Install]\nRequiredBy=default.target\n",
		"usr/lib/systemd/system-preset/90-x.preset": "disable off.*\n", "usr/lib/sysusers.d/a.conf": "u! a - \"A user\"\ng b 40\nm a mail\nu c -:mail\n",
		"usr/lib/tmpfiles.d/a.conf": "d /var/lib/a 0750 a mail -\nL /etc/a.link - - - - ../x\nf /var/lib/a/f 0600 - - - text\nL? /etc/none - - - - /nowhere\nz /usr/bin/sh 0700 - b -\n",
		"usr/bin/mawk":              "1", "usr/share/man/awk.1": "1", "etc/conf": "1", "srv/gone": "1", "usr/share/a": "1"}
	members := control("tool", "1-1", "Multi-Arch: same\nEssential: yes\n")
	members["conffiles"], members["triggers"] = "/etc/conf\n/etc/left-out\n", "interest-noawait ldconfig\ninterest /usr/lib/udev/hwdb.d\n"
	deeds := Deeds{Divert: map[string]string{"/etc/replaced": "/etc/replaced.old"}, Dirs: []File{{Path: "/var/d", Mode: "2775", Group: "mail"}}, Copies: map[string]string{"/etc/copy": "/usr/share/a"},
		Files: []File{{Path: "/var/f", Mode: "0640", Text: "of @VERSION@ @ARCH@\n"}}, Links: map[string]string{"/etc/l": "../x"}, Owners: []File{{Path: "/usr/bin/mawk", User: "root", Group: "mail", Mode: "2755"}, {Path: "/srv", User: "a", Group: "c", Mode: "0750"}},
		Alternatives: []string{"/usr/bin/awk awk /usr/bin/mawk 5 --slave /usr/share/man/x.1 x.1 /usr/share/man/awk.1", "/usr/bin/awk awk /nowhere 1"}, Enable: []string{"b@y.socket"},
		Sysusers: []string{"a.conf"}, Groups: []string{"_g"}, Users: []User{{Name: "c", Home: "/run/c", Group: "c"}}, Tmpfiles: []string{"a.conf"}, Remove: []string{"/srv/gone"},
		preset: []string{"a.service", "off.service"}, userPreset: []string{"u.service"}, nss: []string{"hosts/a from tool in position after=files"}}
	for _, s := range steps {
		deeds.Steps = append(deeds.Steps, s.name)
	}
	modules := tree.New()
	if err := modules.ApplyTar("../../../internal/kmod/testdata/modules.tar"); err != nil {
		t.Fatal(err)
	}
	kernel := map[string]string{}
	for _, p := range modules.Paths() {
		if name := strings.TrimPrefix(p, "1.0/"); strings.HasPrefix(name, "kernel/") && strings.Contains(name, ".ko") || name == "modules.order" || strings.HasPrefix(name, "modules.builtin") && !strings.HasSuffix(name, ".bin") {
			text, err := modules.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			kernel["usr/lib/modules/6.12.0/"+name] = string(text)
		}
	}
	return []madeUpPackage{
		{files: base, members: control("base-files", "1", "")},
		{files: map[string]string{"etc/replaced": "1", "bin/x": "1", "etc/conf": "2", "usr/share/l": "-> a"}, members: control("other", "2:1~a", "Replaces: tool (<< 2)\n")},
		{files: tool, members: members, deeds: &deeds},
		{files: kernel, members: control("linux-image-6.12.0", "6.12.0-1", "")},
	}
}

// library is a shared library for x86-64 of nothing but its name.
func library(soname string) string {
	names := "\x00" + soname + "\x00"
	dynamic := []elf.Dyn64{{Tag: int64(elf.DT_SONAME), Val: 1}, {}}
	head := elf.Header64{Type: uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: 64, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 1}
	copy(head.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	const data = 64 + 3*64
	sections := []elf.Section64{{}, {Type: uint32(elf.SHT_STRTAB), Off: data, Size: uint64(len(names))},
		{Type: uint32(elf.SHT_DYNAMIC), Off: data + uint64(len(names)), Size: 32, Link: 1, Entsize: 16}}
	var b bytes.Buffer
	for _, part := range []any{head, sections, []byte(names), dynamic} {
		_ = binary.Write(&b, binary.LittleEndian, part) // into memory
	}
	return b.String()
}

// certificate is the same one every time.
func certificate(t *testing.T) string {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "A  Made Up"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0)}
	der, err := x509.CreateCertificate(nil, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
