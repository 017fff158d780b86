package tree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// item is one archive entry of a test; data is what a file holds.
type item struct {
	tar.Header
	data string
}

func file(name, data string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, data}
}
func folder(name string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}, ""}
}
func soft(name, target string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}, ""}
}
func hard(name, target string) item {
	return item{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}, ""}
}
func odd(name string, kind byte, mode int64) item {
	return item{tar.Header{Name: name, Typeflag: kind, Mode: mode}, ""}
}

func pack(t testing.TB, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		it.Size = int64(len(it.data))
		if err := w.WriteHeader(&it.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(it.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func save(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// apply lays archives on an empty tree, lowest first.
func apply(t testing.TB, layers ...[]item) (*Tree, error) {
	t.Helper()
	tr := New()
	for _, items := range layers {
		if err := tr.ApplyTar(save(t, pack(t, items...))); err != nil {
			return tr, err
		}
	}
	return tr, nil
}

func TestApplyTar(t *testing.T) {
	ping := file("usr/bin/ping", "ping")
	ping.Mode, ping.Uid, ping.PAXRecords = 0o4755, 7, map[string]string{"SCHILY.xattr.security.capability": "cap"}
	null := odd("dev/null", tar.TypeChar, 0o666)
	null.Devmajor, null.Devminor = 1, 3
	disk := odd("dev/far", tar.TypeBlock, 0o660)
	disk.Devmajor, disk.Devminor = 259, 0x12345
	long := strings.Repeat("d/", 60) + strings.Repeat("n", 200)
	tr, err := apply(t, []item{
		folder("./"), folder("./usr/bin"), soft("bin", "usr/bin"), ping, file("bin/sh", "through the link"), hard("usr/bin/dash", "bin/sh"),
		hard("absolute", "/usr/bin/sh"), odd("tmp", tar.TypeDir, 0o1777), null, disk, odd("pipe", tar.TypeFifo, 0o600),
		file("twice", "old"), file("twice", "new"), file(long, "PAX name"), {tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"comment": "c"}}, ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := show(t, tr)
	for p := range got {
		if strings.HasPrefix(p, "d/") && p != long || p == "d" {
			delete(got, p)
		}
	}
	want := map[string]string{
		".": "drwxr-xr-x", "usr": "drwxr-xr-x", "usr/bin": "drwxr-xr-x", "bin": "-> usr/bin", "usr/bin/ping": "urwxr-xr-x 7:0 ping security.capability=cap",
		"usr/bin/sh": "-rw-r--r-- through the link", "usr/bin/dash": "-rw-r--r-- through the link", "absolute": "-rw-r--r-- through the link",
		"tmp": "dtrwxrwxrwx", "dev": "drwxr-xr-x", "dev/null": "Dcrw-rw-rw- 0x103", "dev/far": "Drw-rw---- 0x12310345", "pipe": "prw-------",
		"twice": "-rw-r--r-- new", long: "-rw-r--r-- PAX name",
	}
	if d := diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestWhiteouts(t *testing.T) {
	lower := []item{folder("d"), file("d/a", "1"), file("d/sub/x", "1"), file("d/sub/y", "1"), file("e", "1"), folder("real"), file("real/f", "1"), soft("link", "real")}
	for name, c := range map[string]struct {
		upper []item
		want  []string // the paths that are left
	}{
		"file":                  {[]item{file("d/.wh.a", "")}, []string{".", "d", "d/sub", "d/sub/x", "d/sub/y", "e", "link", "real", "real/f"}},
		"folder":                {[]item{file(".wh.d", "")}, []string{".", "e", "link", "real", "real/f"}},
		"nothing":               {[]item{file("no/.wh.thing", "")}, []string{".", "d", "d/a", "d/sub", "d/sub/x", "d/sub/y", "e", "link", "real", "real/f"}},
		"opaque":                {[]item{file("d/.wh..wh..opq", ""), file("d/new", "2")}, []string{".", "d", "d/new", "e", "link", "real", "real/f"}},
		"opaque, afterwards":    {[]item{file("d/new", "2"), file("d/.wh..wh..opq", "")}, []string{".", "d", "d/new", "e", "link", "real", "real/f"}},
		"opaque, deep below":    {[]item{file("d/sub/new", "2"), file("d/.wh..wh..opq", "")}, []string{".", "d", "d/sub", "d/sub/new", "e", "link", "real", "real/f"}},
		"opaque root":           {[]item{file("n", "2"), file(".wh..wh..opq", "")}, []string{".", "n"}},
		"own file stays":        {[]item{file("e", "2"), file(".wh.e", ""), file("d/n", "2"), file(".wh.d", "")}, []string{".", "d", "d/n", "e", "link", "real", "real/f"}},
		"through a link inside": {[]item{file("link/.wh.f", "")}, []string{".", "d", "d/a", "d/sub", "d/sub/x", "d/sub/y", "e", "link", "real"}},
		"aufs bookkeeping":      {[]item{file(".wh..wh.plnk", ""), file(".wh.e", "")}, []string{".", "d", "d/a", "d/sub", "d/sub/x", "d/sub/y", "link", "real", "real/f"}},
		"type changes":          {[]item{soft("d", "/tmp"), folder("d"), file("d/z", "2")}, []string{".", "d", "d/z", "e", "link", "real", "real/f"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := apply(t, lower, c.upper)
			if err != nil {
				t.Fatal(err)
			}
			if d := diff(c.want, tr.Paths()); d != "" {
				t.Error(d)
			}
			whole(t, tr)
		})
	}
}

// whole fails unless every entry lies in a folder of the tree: what later stages rely on.
func whole(t *testing.T, tr *Tree) {
	t.Helper()
	for _, p := range tr.Paths() {
		if c, err := Clean(p); err != nil || c != p {
			t.Errorf("path %q is not clean: %v", p, err)
		}
		if n, ok := tr.Get(filepath.Dir(p)); !ok || !n.Mode.IsDir() {
			t.Errorf("%q lies in no folder", p)
		}
	}
}

// TestHostile: archives that made other tools write where they must not.
func TestHostile(t *testing.T) {
	long := strings.Repeat("x/", 2100) + "f"
	for name, c := range map[string]struct {
		items []item
		want  string // in the error
	}{
		"climbs":                     {[]item{file("../../etc/passwd", "x")}, "climbs"},
		"climbs in the middle":       {[]item{file("a/../../b", "x")}, "climbs"},
		"hard link to outside":       {[]item{hard("a", "../../etc/shadow")}, "climbs"},
		"hard link to the host":      {[]item{hard("a", "/etc/passwd")}, "not a file of the archive"},
		"hard link before target":    {[]item{hard("a", "b"), file("b", "x")}, "not a file of the archive"},
		"hard link to a folder":      {[]item{folder("d"), hard("a", "d")}, "not a file of the archive"},
		"hard link to the root":      {[]item{hard("a", ".")}, "not a file of the archive"},
		"hard link over the root":    {[]item{file("b", "x"), hard(".", "b")}, "root must be a directory"},
		"root becomes a link":        {[]item{soft(".", "/tmp"), file("x", "x")}, "root must be a directory"},
		"root becomes a link, by /":  {[]item{soft("/", "/tmp")}, "root must be a directory"},
		"empty name":                 {[]item{soft("", "/tmp")}, "root must be a directory"},
		"root becomes a device":      {[]item{odd(".", tar.TypeBlock, 0o666)}, "root must be a directory"},
		"below a file":               {[]item{file("f", "x"), file("f/g", "y")}, "not a directory"},
		"below a link to a file":     {[]item{file("f", "x"), soft("l", "f"), file("l/g", "y")}, "not a directory"},
		"below a dangling link":      {[]item{soft("l", "/outside"), file("l/x", "x")}, "not a directory"},
		"below a loop":               {[]item{soft("a", "b"), soft("b", "a"), file("a/x", "x")}, "too many symbolic links"},
		"link to nothing":            {[]item{soft("a", "")}, "target"},
		"link to a very long target": {[]item{soft("a", strings.Repeat("t", 5000))}, "target"},
		"whiteout of the parent":     {[]item{file("d/.wh...", "")}, "whiteout"},
		"whiteout of itself":         {[]item{file("d/.wh..", "")}, "whiteout"},
		"whiteout of nothing":        {[]item{file("d/.wh.", "")}, "whiteout"},
		"long name":                  {[]item{file(strings.Repeat("n", 256), "x")}, "255"},
		"long path":                  {[]item{file(long, "x")}, "4095"},
		"contiguous file":            {[]item{odd("c", tar.TypeCont, 0o644)}, "unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := apply(t, c.items)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			whole(t, tr)
		})
	}
}

// TestHarmless: what other tools follow out of the root stays inside the tree, or is only data.
func TestHarmless(t *testing.T) {
	host := t.TempDir()
	for name, c := range map[string]struct {
		items []item
		want  map[string]string
	}{
		"absolute name":           {[]item{file("//etc/x", "x")}, map[string]string{"etc": "drwxr-xr-x", "etc/x": "-rw-r--r-- x"}},
		"link, then through it":   {[]item{folder("etc"), soft("l", "/etc"), file("l/x", "x")}, map[string]string{"etc": "drwxr-xr-x", "l": "-> /etc", "etc/x": "-rw-r--r-- x"}},
		"climbing link":           {[]item{folder("etc"), soft("l", "../../../etc"), file("l/x", "x")}, map[string]string{"etc": "drwxr-xr-x", "l": "-> ../../../etc", "etc/x": "-rw-r--r-- x"}},
		"link to the host":        {[]item{soft("l", host)}, map[string]string{"l": "-> " + host}},
		"chained links":           {[]item{folder("a/b"), soft("a/b/up", ".."), soft("top", "a/b/up/.."), file("top/x", "x")}, map[string]string{"a": "drwxr-xr-x", "a/b": "drwxr-xr-x", "a/b/up": "-> ..", "top": "-> a/b/up/..", "x": "-rw-r--r-- x"}},
		"trailing slash on link":  {[]item{folder("d"), soft("l/", "d"), file("l//x", "x")}, map[string]string{"d": "drwxr-xr-x", "l": "-> d", "d/x": "-rw-r--r-- x"}},
		"file over a link":        {[]item{folder("d"), soft("l", "d"), file("l", "x")}, map[string]string{"d": "drwxr-xr-x", "l": "-rw-r--r-- x"}},
		"hard link to a link":     {[]item{soft("l", "/etc/shadow"), hard("h", "l")}, map[string]string{"l": "-> /etc/shadow", "h": "-> /etc/shadow"}},
		"hard link to itself":     {[]item{file("h", "x"), hard("h", "h")}, map[string]string{"h": "-rw-r--r-- x"}},
		"link over a full folder": {[]item{file("d/x", "x"), soft("d", "/tmp")}, map[string]string{"d": "-> /tmp"}},
		"file that says folder":   {[]item{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o40755}, "x"}}, map[string]string{"f": "-rwxr-xr-x x"}},
		"file that says link":     {[]item{{tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o120777}, "x"}}, map[string]string{"f": "-rwxrwxrwx x"}},
		"device that says folder": {[]item{odd("dev0", tar.TypeChar, 0o40600)}, map[string]string{"dev0": "Dcrw------- 0x0"}},
		"control characters":      {[]item{file("a\nb\x1b", "x")}, map[string]string{"a\nb\x1b": "-rw-r--r-- x"}},
		"case and unicode":        {[]item{file("A", "1"), file("a", "2"), file("\u00e9", "3"), file("e\u0301", "4")}, map[string]string{"A": "-rw-r--r-- 1", "a": "-rw-r--r-- 2", "\u00e9": "-rw-r--r-- 3", "e\u0301": "-rw-r--r-- 4"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr, err := apply(t, c.items)
			if err != nil {
				t.Fatal(err)
			}
			c.want["."] = "drwxr-xr-x"
			if d := diff(c.want, show(t, tr)); d != "" {
				t.Error(d)
			}
			whole(t, tr)
		})
	}
	if left, err := os.ReadDir(host); err != nil || len(left) > 0 {
		t.Errorf("something was written on the host: %v, %v", left, err)
	}
}

// raw makes one ustar header by hand, for what the library would not write.
func raw(name string, kind byte, size string, data string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], size)
	copy(h[136:], "00000000000\x00        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, data+strings.Repeat("\x00", (512-len(data)%512)%512)...)
}

func pax(records ...string) []byte {
	var b strings.Builder
	for _, r := range records {
		n := len(r) + 3
		for len(fmt.Sprintf("%d %s\n", n, r)) != n {
			n++
		}
		fmt.Fprintf(&b, "%d %s\n", n, r)
	}
	return raw("PaxHeader", 'x', fmt.Sprintf("%011o", b.Len()), b.String())
}

func TestHandMade(t *testing.T) {
	end := make([]byte, 1024)
	four := fmt.Sprintf("%011o", 4)
	for name, c := range map[string]struct {
		data []byte
		want string // in the error; "" for none
	}{
		"PAX name climbs":        {append(pax("path=../../evil"), raw("good", '0', four, "data")...), "climbs"},
		"PAX name with NUL":      {append(pax("path=a\x00b"), raw("good", '0', four, "data")...), "invalid tar header"},
		"PAX link climbs":        {append(pax("linkpath=../../etc/passwd"), raw("l", '1', "00000000000", "")...), "climbs"},
		"PAX size negative":      {append(pax("size=-4"), raw("f", '0', four, "data")...), "invalid tar header"},
		"PAX size huge":          {append(pax("size=9223372036854775807"), raw("f", '0', four, "data")...), "reading"},
		"size huge":              {raw("f", '0', "77777777777", "data"), "unexpected EOF"},
		"size negative, base256": {raw("f", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ""), "invalid tar header"},
		"sparse, PAX 1.0":        {append(pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=8"), raw("x", '0', fmt.Sprintf("%011o", 516), "1\n0\n4\n"+strings.Repeat("\x00", 506)+"data")...), "sparse"},
		"sparse, PAX 0.1":        {append(pax("GNU.sparse.size=8", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,4"), raw("x", '0', four, "data")...), "sparse"},
		"sparse, old GNU":        {raw("s", 'S', four, "data"), ""}, // not ustar: read as something else or refused, never as data
		"cut in the data":        {raw("f", '0', "00000002000", "data")[:700], "unexpected EOF"},
		"cut in the header":      {raw("f", '0', four, "data")[:300], "unexpected EOF"},
		"bad checksum":           {append([]byte("X"), raw("f", '0', four, "data")[1:]...), "invalid tar header"},
		"no archive":             {[]byte(strings.Repeat("not a tar archive ", 100)), "invalid tar header"},
		"gzip":                   {append([]byte("\x1f\x8b\x08\x00"), make([]byte, 600)...), "invalid tar header"},
		"empty":                  {nil, ""},
		"PAX size smaller":       {append(pax("size=2"), raw("f", '0', four, "data")...), ""},
	} {
		t.Run(name, func(t *testing.T) {
			tr := New()
			err := tr.ApplyTar(save(t, append(c.data, end...)))
			if strings.Contains(name, "cut") {
				err = tr.ApplyTar(save(t, c.data))
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if name == "PAX size smaller" {
				if d := diff(map[string]string{".": "drwxr-xr-x", "f": "-rw-r--r-- da"}, show(t, tr)); err != nil || d != "" {
					t.Error(err, d)
				}
			}
			if _, ok := tr.Get("s"); ok {
				t.Error("a sparse file was taken as plain data")
			}
			whole(t, tr)
		})
	}
}

func TestTenThousandEntries(t *testing.T) {
	var lower, upper []item
	for i := range 10_000 {
		name := fmt.Sprintf("usr/share/d%02d/f%d", i%100, i)
		lower, upper = append(lower, file(name, "1")), append(upper, file(name, "22"))
	}
	one, two := save(t, pack(t, lower...)), save(t, pack(t, upper...))
	tr, start := New(), time.Now()
	for _, f := range []string{one, two} {
		if err := tr.ApplyTar(f); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("20,000 entries in %v", time.Since(start))
	if n := len(tr.Paths()); n != 10_103 {
		t.Errorf("%d paths", n)
	}
}

// FuzzApplyTar: no archive crashes the builder, or leaves a tree that later stages cannot rely on.
func FuzzApplyTar(f *testing.F) {
	f.Add(pack(f, folder("d"), file("d/f", "x"), soft("l", "d"), hard("h", "l/f"), file("d/.wh.f", ""), file(".wh..wh..opq", "")))
	f.Add(append(pax("path=a/b", "GNU.sparse.major=1"), raw("x", '0', "00000000004", "data")...))
	f.Add(raw("../x", '2', "00000000000", ""))
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := New()
		_ = tr.ApplyTar(save(t, data))
		_ = tr.ApplyTar(save(t, data))
		whole(t, tr)
	})
}
