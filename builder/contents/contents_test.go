package contents

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/verify"
)

// root is a sealed root, as small as it can be.
func root() fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }
	return fstest.MapFS{
		dpkgDir + "/status":                      file("Package: bash\nStatus: install ok installed\nVersion: 5.2\n\nPackage: libc6\nVersion: 2.41\n"),
		dpkgDir + "/info/bash.list":              file("/.\n/bin\n/bin/bash\n/etc/bash.bashrc\n"),
		dpkgDir + "/info/libc6:amd64.list":       file("/usr/lib/libc.so.6\n/usr/lib/gconv\n/usr/lib/gconv/KOI8.so\n"),
		"usr/lib/gconv/KOI8.so":                  file("KOI-8"),
		"usr/bin/bash":                           file(strings.Repeat("b", 3000)),
		"usr/bin/kubelet":                        {Data: make([]byte, 2<<20), Mode: 0o755},
		"usr/lib/libc.so.6":                      file("libc"),
		"etc/bash.bashrc":                        file("PS1=x\n"),
		imagesDir + "/meta.db":                   file("records"),
		"usr/lib/systemd/system/kubelet.service": file("[Service]\n"),
		"usr/lib/sysctl.d/10-imgbuild.conf":      file("vm.swappiness = 0\nnet.ipv4.ip_forward = 1\n"),
		"etc/imgbuild/firewall.nft":              file("table inet imgbuild {\n\t# dport 1 is a remark\n\ttcp dport 10250 accept\n}\n"),
		"etc/localtime":                          {Data: []byte("/usr/share/zoneinfo/UTC"), Mode: fs.ModeSymlink | 0o777},
	}
}

func contentsOf(t *testing.T, fsys fs.FS) *Contents {
	t.Helper()
	c := &Contents{Entries: map[string]Entry{}, Report: &verify.Report{OS: map[string]string{"IMAGE_ID": "imgbuild-worker", "PRETTY_NAME": "<Debian>"}}}
	if err := c.read(fsys); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRead(t *testing.T) {
	c := contentsOf(t, root())
	var got []string
	for _, p := range c.Parts {
		got = append(got, fmt.Sprintf("%s %s %s %d", p.Kind, p.Name, p.Version, p.Bytes))
	}
	if got[0] != "program kubelet  2097152" || got[1] != "package bash 5.2 3006" || len(got) != 5 {
		t.Errorf("%q", got)
	}
	if diff := cmp.Diff([]string{"tcp dport 10250 accept"}, c.Ports); diff != "" {
		t.Error(diff)
	}
	if c.Entries["etc/localtime"].Link != "/usr/share/zoneinfo/UTC" || c.Sysctls["net.ipv4.ip_forward"] != "1" {
		t.Errorf("%+v %v", c.Entries["etc/localtime"], c.Sysctls)
	}
	if l := c.Largest(2); len(l) != 2 || l[0].Path != "usr/bin/kubelet" || l[1].Path != "usr/bin/bash" {
		t.Errorf("%+v", l)
	}
}

// TestDiff changes one thing of each kind.
func TestDiff(t *testing.T) {
	before, after := root(), root()
	after[dpkgDir+"/status"] = &fstest.MapFile{Data: bytes.Replace(before[dpkgDir+"/status"].Data, []byte("5.2"), []byte("5.3"), 1), Mode: 0o644}
	after["usr/bin/bash"] = &fstest.MapFile{Data: []byte("another"), Mode: 0o644} // its package says it all
	after["usr/bin/kubelet"] = &fstest.MapFile{Data: append(make([]byte, 2<<20-1), 1), Mode: 0o755}
	after["usr/lib/libc.so.6"] = &fstest.MapFile{Data: []byte("LIBC"), Mode: 0o644} // of the same version: a wonder
	after["usr/lib/systemd/system/new.service"] = &fstest.MapFile{Data: []byte("[Service]\n"), Mode: 0o644}
	after["usr/lib/sysctl.d/10-imgbuild.conf"] = &fstest.MapFile{Data: []byte("net.ipv4.ip_forward = 1\n"), Mode: 0o644}
	after["etc/imgbuild/firewall.nft"] = &fstest.MapFile{Data: []byte("tcp dport 22 accept\ntcp dport 10250 accept\n"), Mode: 0o644}
	after["etc/localtime"] = &fstest.MapFile{Data: []byte("/usr/share/zoneinfo/Asia/Tokyo"), Mode: fs.ModeSymlink | 0o777}
	delete(after, "usr/lib/gconv/KOI8.so") // left out of a package that stays
	a, b := contentsOf(t, before), contentsOf(t, after)
	d := &Diff{Packages: changes(a.Packages, b.Packages), Sysctls: changes(a.Sysctls, b.Sysctls), Ports: changes(set(a.Ports), set(b.Ports))}
	if err := d.files(t.Context(), a, b, before, after); err != nil {
		t.Fatal(err)
	}
	want := &Diff{
		Packages: []Change{{"bash", "5.2", "5.3"}},
		Programs: []Change{{"/usr/bin/kubelet", "-rwxr-xr-x 2048 KiB", "-rwxr-xr-x 2048 KiB, another content"}},
		Units:    []Change{{"/usr/lib/systemd/system/new.service", "", "-rw-r--r-- 10 B"}},
		Sysctls:  []Change{{"vm.swappiness", "0", ""}},
		Ports:    []Change{{"tcp dport 22 accept", "", "open"}},
		Files: []Change{{"/etc/imgbuild/firewall.nft", "-rw-r--r-- 71 B", "-rw-r--r-- 43 B"}, {"/etc/localtime", "→ /usr/share/zoneinfo/UTC", "→ /usr/share/zoneinfo/Asia/Tokyo"},
			{"/usr/lib/gconv/KOI8.so", "-rw-r--r-- 5 B", ""}, {"/usr/lib/libc.so.6", "-rw-r--r-- 4 B", "-rw-r--r-- 4 B, another content"}, {"/usr/lib/sysctl.d/10-imgbuild.conf", "-rw-r--r-- 42 B", "-rw-r--r-- 24 B"}},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	if d.Empty() || !(&Diff{}).Empty() {
		t.Error("empty is not what is empty")
	}
	var page bytes.Buffer
	if err := d.WritePage(&page, "a<b.raw", "b.raw"); err != nil || !strings.Contains(page.String(), "a&lt;b.raw") || !strings.Contains(page.String(), "another content") {
		t.Errorf("%v\n%s", err, page.String())
	}
}

// TestPage wants well-formed pages that bring nothing from elsewhere.
func TestPage(t *testing.T) {
	var page bytes.Buffer
	if err := contentsOf(t, root()).WritePage(&page); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, bad := range []string{"<script", "http:", "https:", "url(", "<Debian>", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if !strings.Contains(text, `<div class="program" data-bytes="2097152" style="left:0.000%;top:0.000%;`) {
		t.Error("no map")
	}
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestMap wants every part to have its area, and no two to share a place.
func TestMap(t *testing.T) {
	var parts []*Part
	var total int64
	for i := range 60 {
		p := &Part{Name: fmt.Sprint(i), Bytes: int64(100000 / (i + 1) / (i + 1))}
		parts, total = append(parts, p), total+p.Bytes
	}
	tiles := lay(parts, total)
	sum := 0.0
	for i, a := range tiles {
		if want := float64(a.Bytes) / float64(total) * 1e4; math.Abs(a.W*a.H-want) > 1e-6*1e4 || a.X < -1e-9 || a.Y < -1e-9 || a.X+a.W > 100+1e-6 || a.Y+a.H > 100+1e-6 {
			t.Errorf("%s: %+v, want an area of %f", a.Name, a, want)
		}
		sum += a.W * a.H
		for _, b := range tiles[:i] {
			if a.X+a.W > b.X+1e-6 && b.X+b.W > a.X+1e-6 && a.Y+a.H > b.Y+1e-6 && b.Y+b.H > a.Y+1e-6 {
				t.Errorf("%s and %s lie on each other", a.Name, b.Name)
			}
		}
	}
	if math.Abs(sum-1e4) > 1 {
		t.Errorf("the tiles cover %f of 10000", sum)
	}
	if lay(nil, 0) != nil {
		t.Error("nothing has a place")
	}
}
