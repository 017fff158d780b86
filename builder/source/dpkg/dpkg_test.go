package dpkg

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/deb"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// pkg is a package of a test: files by path, where "-> x" is a link and "/" a folder.
func pkg(t *testing.T, name, version, fields string, files, members map[string]string) *Package {
	t.Helper()
	control, err := deb.ParseParagraph(fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: amd64\n%s", name, version, fields))
	if err != nil {
		t.Fatal(err)
	}
	p := &Package{Name: name, Version: version, Arch: "amd64", Control: control, Members: map[string][]byte{}, Files: tree.New()}
	for at, text := range files {
		n := tree.Node{Mode: 0o644, Content: tree.Bytes(text)}
		if link, ok := strings.CutPrefix(text, "-> "); ok {
			n = tree.Node{Mode: fs.ModeSymlink | 0o777, Link: link}
		} else if text == "/" {
			n = tree.Node{Mode: dirMode}
		}
		if err := p.Files.Put(at, n); err != nil {
			t.Fatal(err)
		}
	}
	for member, text := range members {
		p.Members[member] = []byte(text)
	}
	return p
}

const passwd = "root:*:0:0:root:/root:/bin/bash\nmail:*:8:8:mail:/var/mail:/usr/sbin/nologin\n"

// least is what every base needs.
func least(t *testing.T) []*Package {
	return []*Package{
		pkg(t, "base-files", "1", "", map[string]string{"etc": "/", "usr/bin": "/", "usr/lib": "/", "bin": "-> usr/bin", "lib": "-> usr/lib"}, nil),
		pkg(t, "base-passwd", "1", "", map[string]string{"usr/share/base-passwd/passwd.master": passwd, "usr/share/base-passwd/group.master": "root:*:0:\nmail:*:8:\n"}, nil),
	}
}

func lay(t *testing.T, more ...*Package) (*tree.Tree, error) {
	t.Helper()
	return Lay(append(least(t), more...))
}

func TestWrongSetsOfPackages(t *testing.T) {
	file := map[string]string{"usr/bin/x": "1"}
	a := pkg(t, "a", "1-1", "", file, nil)
	for name, c := range map[string]struct {
		packages []*Package
		want     string
	}{
		"the same file twice":              {[]*Package{a, pkg(t, "b", "2-1", "", file, nil)}, "package a 1-1 and b 2-1 both have /usr/bin/x, and neither replaces the other"},
		"replaces an older one only":       {[]*Package{a, pkg(t, "b", "2-1", "Replaces: a (<< 1-1)\n", file, nil)}, "both have /usr/bin/x"},
		"through another one's link":       {[]*Package{pkg(t, "a", "1-1", "", map[string]string{"srv": "-> /etc"}, nil), pkg(t, "b", "2-1", "", map[string]string{"srv/passwd": "1"}, nil)}, "package b 2-1 has /srv/passwd, but /srv is a link or a file of package a 1-1"},
		"through a link into /usr":         {[]*Package{pkg(t, "a", "1-1", "", map[string]string{"usr/x": "-> bin"}, nil), pkg(t, "b", "2-1", "", map[string]string{"usr/x/sh": "1"}, nil)}, "/usr/x is a link or a file of package a 1-1"},
		"by the other name of one":         {[]*Package{a, pkg(t, "b", "2-1", "", map[string]string{"bin/x": "1"}, nil)}, "both have /usr/bin/x"},
		"a folder and a file":              {[]*Package{a, pkg(t, "b", "2-1", "", map[string]string{"usr/bin/x": "/"}, nil)}, "package a 1-1 and b 2-1 both have /usr/bin/x, and it is a folder in one of them only"},
		"a folder and a replacing file":    {[]*Package{pkg(t, "a", "1-1", "", map[string]string{"opt/x/y": "1"}, nil), pkg(t, "b", "2-1", "Replaces: a\n", map[string]string{"opt/x": "1"}, nil)}, "package a 1-1 and b 2-1 both have /opt/x, and it is a folder"},
		"a folder and a file, twice named": {[]*Package{pkg(t, "b", "2-1", "", map[string]string{"lib/x/y": "1", "usr/lib/x": "1"}, nil)}, "both have /usr/lib/x, and it is a folder"},
		"unknown maintainer script":        {[]*Package{pkg(t, "a", "1-1", "", nil, map[string]string{"postinst": "#!/bin/sh\nset -e\nrm -rf /\n"})}, "package a 1-1: its postinst (sha256 "},
		"changed maintainer script":        {[]*Package{pkg(t, "dash", "9", "", nil, map[string]string{"postinst": "#!/bin/sh\nln -sf bash /bin/sh\n"})}, "package dash 9: its postinst"},
		"unknown config script":            {[]*Package{pkg(t, "a", "1-1", "", nil, map[string]string{"config": "#!/bin/sh\ndb_input high a/b\n"})}, "package a 1-1: its config"},
		"unknown generated section":        {[]*Package{pkg(t, "a", "1-1", "", nil, map[string]string{"postinst": "#!/bin/sh\n# Automatically added by dh_evil/1\nrm -rf /\n# End automatically added section\n"})}, "package a 1-1: its postinst has a section of dh_evil that nobody read"},
		"a section that hides more":        {[]*Package{pkg(t, "a", "1-1", "", nil, map[string]string{"postinst": "#!/bin/sh\n# Automatically added by dh_installdeb/1\ndpkg-maintscript-helper rm_conffile /x 1; rm -rf / -- \"$@\"\n# End automatically added section\n"})}, "a section of dh_installdeb that nobody read"},
		"unknown trigger":                  {[]*Package{pkg(t, "a", "1-1", "", nil, map[string]string{"triggers": "interest-noawait /usr/share/mime\n"})}, "package a 1-1: its trigger /usr/share/mime is not one that was read"},
		"a kernel module of a stranger":    {[]*Package{kernel(t), pkg(t, "a-dkms", "1-1", "", map[string]string{"usr/lib/modules/6.12/extra/x.ko": "1"}, nil)}, "package a-dkms 1-1 brings the kernel module /usr/lib/modules/6.12/extra/x.ko"},
		"a hook of a stranger's":           {[]*Package{postinst(t, pkg(t, "python3", "3", "", nil, map[string]string{}), "python3"), pkg(t, "a", "1-1", "", map[string]string{"usr/share/python3/runtime.d/a.rtupdate": "1"}, nil)}, "/usr/share/python3/runtime.d/a.rtupdate is a hook of python3's scripts that nobody read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lay(t, c.packages...)
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Spec {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), "base.") && !strings.Contains(err.Error(), "nothing is laid out through") {
				t.Errorf("%v names no way out", err)
			}
		})
	}
}

// kernel is a kernel's package with the script that asks for its modules' indices.
func kernel(t *testing.T) *Package {
	p := pkg(t, "linux-image-6.12", "6.12-1", "", map[string]string{"usr/lib/modules/6.12/modules.dep.bin": ""}, nil)
	return postinst(t, p, "linux-image-[0-9]*")
}

// postinst gives a package what stands for the postinst of another one.
func postinst(t *testing.T, p *Package, of string) *Package {
	for _, e := range theTable.Scripts {
		if e.Package == of && e.Script == "postinst" {
			return fake(t, p, e)
		}
	}
	t.Fatal("the table has no postinst of " + of)
	return nil
}

// fake lets a package do what an entry says without the script's own text.
func fake(t *testing.T, p *Package, e Entry) *Package {
	old := theTable.Scripts
	t.Cleanup(func() { theTable.Scripts = old })
	p.Members["postinst"] = []byte("fake " + e.Package + "\n")
	theTable.Scripts = append(theTable.Scripts, Entry{Package: p.Name, Script: "postinst", SHA256: []string{digest("fake " + e.Package + "\n")}, Deeds: e.Deeds})
	return p
}

func TestUnionKeepsToDpkgsRules(t *testing.T) {
	a := pkg(t, "a", "1-1", "", map[string]string{"usr/bin/x": "a", "usr/bin/y": "a"}, nil)
	n, _ := a.Files.Get("usr/bin")
	n.Mode = fs.ModeDir | 0o700                                                                                     // base-files was first
	b := pkg(t, "b", "2-1", "Replaces: a (<< 2)\n", map[string]string{"bin/x": "b", "usr/bin": "-> /nowhere"}, nil) // no link in a folder's place
	got, err := lay(t, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := got.ReadFile("usr/bin/x"); string(text) != "b" {
		t.Errorf("usr/bin/x is of %q", text)
	}
	if n, _ := got.Get("usr/bin"); n.Mode.Perm() != 0o755 {
		t.Errorf("usr/bin has mode %v", n.Mode)
	}
	if n, _ := got.Get("bin"); n.Link != "usr/bin" {
		t.Errorf("bin is %v", n)
	}
}

// TestFullFolders: what stands for a script puts nothing in the place of a folder that packages have files in.
func TestFullFolders(t *testing.T) {
	full := pkg(t, "full", "1", "", map[string]string{"srv/x/y": "1", "srv/empty": "/", "usr/lib/tmpfiles.d/a.conf": "L+ /srv/x - - - - /etc\n",
		"usr/lib/systemd/system/a.service": "[Install]\nAlias=b.service\n", "etc/systemd/system/b.service/y": "1", "srv/awk": "1", "etc/alternatives/awk/y": "1"}, nil)
	for name, c := range map[string]struct {
		deeds Deeds
		want  string // none: it may
	}{
		"a link":          {Deeds{Links: map[string]string{"/srv/x": "/etc"}}, "package a: /srv/x would no longer be a folder, and package full 1 has /srv/x/y"},
		"tmpfiles":        {Deeds{Tmpfiles: []string{"a.conf"}}, ": /srv/x would no longer be a folder, and package full 1 has"},
		"a unit":          {Deeds{Enable: []string{"a.service"}}, "/etc/systemd/system/b.service would no longer be a folder"},
		"an alternative":  {Deeds{Alternatives: []string{"/usr/bin/awk awk /srv/awk 5"}}, "/etc/alternatives/awk would no longer be a folder"},
		"an empty folder": {Deeds{Links: map[string]string{"/srv/empty": "/etc"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lay(t, full, fake(t, pkg(t, "a", "1", "", nil, nil), Entry{Package: "a", Deeds: c.deeds}))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), WayOut)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestDeeds(t *testing.T) {
	section := func(name string) string {
		text, err := snippetFiles.ReadFile("snippets/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(text), "\n")
		return "# Automatically added by dh_x/1\n" + body + "# End automatically added section\n"
	}
	p := pkg(t, "a", "1-1", "", map[string]string{
		"usr/lib/systemd/system/a.service":          "[Install]\nWantedBy=multi-user.target\nAlias=b.service\nAlso=a.socket\n",
		"usr/lib/systemd/system/a.socket":           "[Install]\nWantedBy=sockets.target\n",
		"usr/lib/systemd/system/off.service":        "[Install]\nWantedBy=multi-user.target\n",
		"usr/lib/systemd/system-preset/90-x.preset": "disable off.*\n",
		"usr/lib/sysusers.d/a.conf":                 "u! a - \"A user\"\ng b 40\nm a mail\nu c -:mail\n",
		"usr/lib/tmpfiles.d/a.conf":                 "d /var/lib/a 0750 a mail -\nL /etc/a.link - - - - ../x\nd /run/a 0755 - - -\nf^ /etc/secret 0600 - - - key\n",
		"usr/bin/mawk":                              "x",
		"etc/apparmor.d/usr.bin.a":                  "x",
	}, map[string]string{"postinst": "#!/bin/sh\nset -e\n" +
		strings.ReplaceAll(section("installsystemd-enable-1.sh"), "'X'", "'a.service'") +
		strings.ReplaceAll(section("installsystemd-enable-1.sh"), "'X'", "'off.service'") +
		strings.Replace(section("installsysusers-sysusers-1.sh"), " X", " a.conf", 1) +
		strings.Replace(section("installtmpfiles-tmpfiles-1.sh"), " X", " a.conf", 1) +
		strings.ReplaceAll(section("apparmor-apparmor-1.sh"), "/X", "/usr.bin.a") +
		strings.ReplaceAll(section("python3-bytecode-1.sh"), "-p X", "-p a:amd64 /usr/share/a") +
		strings.Replace(section("installalternatives-alternatives-1.sh"), "--install X", "--install /usr/bin/awk awk /usr/bin/mawk 5 --slave /usr/share/man/awk.1 awk.1 /usr/share/man/mawk.1", 1)})
	got, err := lay(t, p)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"etc/systemd/system/multi-user.target.wants/a.service": "/usr/lib/systemd/system/a.service",
		"etc/systemd/system/b.service":                         "/usr/lib/systemd/system/a.service",
		"etc/systemd/system/sockets.target.wants/a.socket":     "/usr/lib/systemd/system/a.socket",
		"etc/alternatives/awk":                                 "/usr/bin/mawk",
		"usr/bin/awk":                                          "/etc/alternatives/awk",
		"etc/a.link":                                           "../x",
	} {
		if n, ok := got.Get(at); !ok || n.Link != want {
			t.Errorf("%s: %v, want a link to %s", at, n, want)
		}
	}
	for _, at := range []string{"etc/systemd/system/multi-user.target.wants/off.service", "run/a", "etc/secret", "etc/alternatives/awk.1"} {
		if _, ok := got.Get(at); ok {
			t.Errorf("%s is there", at)
		}
	}
	for at, want := range map[string]string{
		"etc/passwd":                     passwd + "a:x:999:999:A user:/:/usr/sbin/nologin\nc:x:998:8::/:/usr/sbin/nologin\n",
		"etc/group":                      "root:*:0:\nmail:*:8:a\nb:x:40:\na:x:999:\n",
		"etc/shadow":                     "a:!*:20454:::::1:\nc:!*:20454::::::\n",
		"etc/gshadow":                    "b:!*::\na:!*::\n",
		"etc/apparmor.d/local/usr.bin.a": "",
		"var/lib/dpkg/alternatives/awk":  "auto\n/usr/bin/awk\nawk.1\n/usr/share/man/awk.1\n\n/usr/bin/mawk\n5\n/usr/share/man/mawk.1\n\n",
	} {
		if text, err := got.ReadFile(at); err != nil || string(text) != want {
			t.Errorf("%s: %q, want %q: %v", at, text, want, err)
		}
	}
	if n, _ := got.Get("var/lib/a"); n == nil || n.UID != 999 || n.GID != 8 || n.Mode.Perm() != 0o750 {
		t.Errorf("var/lib/a: %v", n)
	}
}

// TestUsersByHand: what a script makes by hand is there before systemd-sysusers looks for it.
func TestUsersByHand(t *testing.T) {
	p := pkg(t, "a", "1", "", map[string]string{"usr/lib/sysusers.d/a.conf": "u a - \"A user\" /var/lib/a\nu b - -\n"}, map[string]string{})
	p = fake(t, p, Entry{Package: "a", Deeds: Deeds{Sysusers: []string{"a.conf"}, Users: []User{{Name: "a", Home: "/run/a", Group: "a"}}}})
	got, err := lay(t, p)
	if err != nil {
		t.Fatal(err)
	}
	want := passwd + "b:x:999:999::/:/usr/sbin/nologin\na:x:100:100::/run/a:/usr/sbin/nologin\n"
	if text, err := got.ReadFile("etc/passwd"); err != nil || string(text) != want {
		t.Errorf("%q, want %q: %v", text, want, err)
	}
}

func TestShadow(t *testing.T) {
	u, err := readUsers([]byte("root:*:0:0::/root:/bin/sh\n"), []byte("root:*:0:\nmail:*:8:list\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readUsers([]byte("x\n"), nil); err == nil {
		t.Error("a line without fields is taken")
	}
	if err := u.addSystemGroup("_ssh"); err != nil {
		t.Fatal(err)
	}
	for _, w := range []User{{Name: "statd", Home: "/x", Group: "mail"}, {Name: "b", Comment: "B", Shell: "/bin/false", Group: "b"}, {Name: "root"}} {
		if err := u.addSystemUser(w); err != nil {
			t.Fatal(err)
		}
	}
	u.shadowAll()
	got := fmt.Sprint(u.passwd, u.shadow, u.groups, u.gshadow)
	if want := "[[root x 0 0  /root /bin/sh] [statd x 100 8  /x /usr/sbin/nologin] [b x 101 101 B /nonexistent /bin/false]] " +
		"[[statd ! 20454      ] [b ! 20454      ] [root * 20454 0 99999 7   ]] " +
		"[[root x 0 ] [mail x 8 list] [_ssh x 100 ] [b x 101 ]] [[_ssh !  ] [b !  ] [root *  ] [mail *  list]]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFilter(t *testing.T) {
	f, err := NewFilter([]string{"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*"})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{"/usr/share/doc/a/copyright": true, "/usr/share/doc/a/b/copyright": true, "/usr/share/doc/a/README": false,
		"/usr/share/doc/a/": true, "/usr/share/man/man1/": false, "/usr/share/man": true, "/usr/bin/x": true} {
		if got := f.Keeps(strings.TrimRight(p, "/"), strings.HasSuffix(p, "/")); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
	if _, err := NewFilter([]string{"/usr/share/doc/*"}); err == nil {
		t.Error("a line without a key is taken")
	}
}

func TestLayer(t *testing.T) {
	layer := func(files map[string]string) (list []string, err error) {
		file := filepath.Join(t.TempDir(), "layer.tar")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // of a test
		p, err := deb.Open(debOf(t, files, map[string]string{"control": "Package: a\nVersion: 1\nArchitecture: all\n"}))
		if err != nil {
			t.Fatal(err)
		}
		keep, _ := NewFilter([]string{"path-exclude=/usr/share/man/*"})
		if err := Layer(p, keep, f); err != nil {
			return nil, err
		}
		u := tree.New()
		if err := u.ApplyTar(file); err != nil {
			t.Fatal(err)
		}
		text, _ := u.ReadFile("var/lib/dpkg/info/a.list")
		return append(u.Paths(), string(text)), nil
	}
	got, err := layer(map[string]string{"usr/x": "", "usr/share/man/y": ""})
	if want := "/usr/share/man/y\n/usr/x\n"; err != nil || got[len(got)-1] != want || slices.Contains(got, "usr/share/man/y") || !slices.Contains(got, "usr/x") {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := layer(map[string]string{"usr/.wh.x": ""}); err == nil || !strings.Contains(err.Error(), "takes this name for a removal") {
		t.Errorf("a whiteout of a package's: %v", err)
	}
}

// debOf writes a package of these files and members of its control archive, as pkg has them.
func debOf(t *testing.T, files, members map[string]string) string {
	pack := func(files map[string]string) string {
		var b strings.Builder
		w := tar.NewWriter(&b)
		for _, at := range sortedKeys(files) {
			text := files[at]
			h := &tar.Header{Name: "./" + at, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}
			if link, ok := strings.CutPrefix(text, "-> "); ok {
				h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, link, 0
			} else if text == "/" {
				h.Typeflag, h.Mode, h.Size = tar.TypeDir, 0o755, 0
			}
			_ = w.WriteHeader(h)
			_, _ = io.WriteString(w, text[:h.Size])
		}
		_ = w.Close()
		return b.String()
	}
	out := "!<arch>\n"
	for _, m := range [][2]string{{"debian-binary", "2.0\n"}, {"control.tar", pack(members)}, {"data.tar", pack(files)}} {
		out += fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n", m[0], 0, 0, 0, "100644", len(m[1])) + m[1]
	}
	file := filepath.Join(t.TempDir(), "a.deb")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestDivertedFilesAreSetAside(t *testing.T) {
	a := pkg(t, "a", "1-1", "", map[string]string{"usr/bin/x": "a"}, nil)
	b := pkg(t, "b", "2-1", "", map[string]string{"usr/bin/x": "b"}, nil)
	got, err := union([]*Package{a, b}, map[string]diversion{"/usr/bin/x": {"/usr/bin/x.a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{"usr/bin/x": "b", "usr/bin/x.a": "a"} {
		if text, _ := got.ReadFile(at); string(text) != want {
			t.Errorf("%s is of %q, want %q", at, text, want)
		}
	}
	deeds := []Deeds{{Divert: map[string]string{"/x": "/x.a"}}, {Divert: map[string]string{"/x": "/x.b"}}}
	if _, err := diversions([]*Package{a, b}, deeds); err == nil || !strings.Contains(err.Error(), "packages a and b both divert /x") {
		t.Error(err)
	}
}

// TestTemplates: what is linked for templates, instances, and names with specifiers in them.
func TestTemplates(t *testing.T) {
	const to, on = " -> /usr/lib/systemd/system/", "WantedBy=multi-user.target\n"
	for _, c := range []struct{ unit, install, want string }{
		{"a.service", on, "multi-user.target.wants/a.service" + to + "a.service"},
		{"a@.service", on, ""},
		{"a@.service", "WantedBy=multi-user.target b@.target\n", "b@.target.wants/a@.service" + to + "a@.service"},
		{"a@.service", on + "DefaultInstance=tty1\n", "multi-user.target.wants/a@tty1.service" + to + "a@.service"},
		{"a@x.service", on + "DefaultInstance=tty1\n", "multi-user.target.wants/a@x.service" + to + "a@.service"},
		{"a-b@x.service", "WantedBy=%p.target %j-%i.target\nRequiredBy=%N.target\nUpheldBy=of-%n\n",
			"a-b.target.wants/a-b@x.service a-b@x.target.requires/a-b@x.service b-x.target.wants/a-b@x.service of-a-b@x.service.upholds/a-b@x.service" + to + "a-b@.service"},
		{"a@.service", "DefaultInstance=%p1\nWantedBy=on-%i.target\n", "on-a1.target.wants/a@a1.service" + to + "a@.service"},
		{"a.service", "Alias=b.service b@.service b.socket b\n", "b.service" + to + "a.service"},
		{"a@.service", "Alias=b.service b@.service b@y.service\n", "b@.service b@y.service" + to + "a@.service"},
		{"a@x.service", "Alias=b.service b@.service b@y.service\n", "b@x.service" + to + "a@.service"},
		{"a.service", "Alias=x.target.wants/a.service\n", "x.target.wants/a.service" + to + "a.service"},
		{"a.service", "WantedBy=%H.target\n", "!WantedBy=: \"%H.target\": only the machine knows what %H is"},
		{"a.service", "Alias=x%.service\n", "!what %. is"},
		{"a@.service", "DefaultInstance=%m\n" + on, "!DefaultInstance="},
		{"a@.service", "DefaultInstance=x/y\n" + on, "!has no slash"},
		{"a.service", "Alias=../../../x.service\n", "!climbs out"},
		{"../a.service", on, "!has no slash"},
	} {
		r := &root{Tree: tree.New()}
		for _, file := range []string{"a.service", "a@.service", "a-b@.service"} {
			if err := r.text("usr/lib/systemd/system/"+file, []byte("[Install]\n"+c.install)); err != nil {
				t.Fatal(err)
			}
		}
		err := r.enable("system", c.unit)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %q: %v, want %q", c.unit, c.install, err, want)
			}
			continue
		}
		var links []string
		target := ""
		for _, p := range r.Paths() {
			if n, _ := r.Get(p); n.Link != "" {
				links, target = append(links, strings.TrimPrefix(p, "etc/systemd/system/")), " -> "+n.Link
			}
		}
		if got := strings.Join(links, " ") + target; got != c.want || err != nil {
			t.Errorf("%s, %q: %v\n got %s\nwant %s", c.unit, c.install, err, got, c.want)
		}
	}
}

// TestUnitWithoutType: such a name is an error.
func TestUnitWithoutType(t *testing.T) {
	r := &root{Tree: tree.New()}
	if err := r.enable("system", "a@b"); err == nil || !strings.Contains(err.Error(), "a@b") {
		t.Errorf("error %v", err)
	}
}
