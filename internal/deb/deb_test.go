package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

const control = "Package: a\nVersion: 1-1\nArchitecture: all\nInstalled-Size: 1\nDescription: a\n more\n"

type entry struct {
	name string
	kind byte
	text string // content, or a link's target
}

func archive(entries ...entry) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o644}
		if e.kind == tar.TypeReg {
			h.Size = int64(len(e.text))
		} else {
			h.Linkname = e.text
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if e.kind == tar.TypeReg {
			_, _ = w.Write([]byte(e.text))
		}
	}
	_ = w.Close()
	return b.Bytes()
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data)
	_ = w.Close()
	return b.Bytes()
}

// pack writes a package of members, each a name and its content in turn.
func pack(t *testing.T, members ...any) string {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for i := 0; i < len(members); i += 2 {
		data := members[i+1].([]byte)
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", members[i], 0, 0, 0, "100644", len(data))
		b.Write(data)
		if len(data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	file := filepath.Join(t.TempDir(), "a.deb")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func simple(t *testing.T, entries ...entry) string {
	return pack(t, "debian-binary", []byte("2.0\n"), "control.tar.gz", zipped(archive(entry{"./control", tar.TypeReg, control})), "data.tar.gz", zipped(archive(entries...)))
}

func walk(file string) (names []string, err error) {
	p, err := Open(file)
	if err != nil {
		return nil, err
	}
	err = p.Walk(func(h *tar.Header, r io.Reader) error {
		text, err := io.ReadAll(r)
		names = append(names, h.Name+"="+string(text)+h.Linkname)
		return err
	})
	return names, err
}

func TestPackage(t *testing.T) {
	file := simple(t, entry{"./", tar.TypeDir, ""}, entry{"./usr/", tar.TypeDir, ""}, entry{"./usr/x", tar.TypeReg, "text"},
		entry{"./usr/y", tar.TypeLink, "./usr/x"}, entry{"./usr/z", tar.TypeSymlink, "../../x"})
	p, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if p.Control.Get("version") != "1-1" || p.Control.Get("Description") != "a\n more" {
		t.Errorf("control: %q", p.Control)
	}
	got, err := walk(file)
	if want := []string{".=", "usr=", "usr/x=text", "usr/y=usr/x", "usr/z=../../x"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCompressions(t *testing.T) {
	data := archive(entry{"./x", tar.TypeReg, "text"})
	z, _ := zstd.NewWriter(nil)
	xz, err := os.ReadFile("testdata/x.tar.xz")
	if err != nil {
		t.Fatal(err)
	}
	for ext, packed := range map[string][]byte{"": data, ".gz": zipped(data), ".zst": z.EncodeAll(data, nil), ".xz": xz} {
		file := pack(t, "debian-binary", []byte("2.0\n"), "control.tar", archive(entry{"./control", tar.TypeReg, control}), "data.tar"+ext, packed)
		if got, err := walk(file); err != nil || !slices.Equal(got, []string{"x=text"}) {
			t.Errorf("%q: %q, %v", ext, got, err)
		}
	}
}

// Every way in which a package may be wrong has a name.
func TestHostilePackages(t *testing.T) {
	plain := archive(entry{"./control", tar.TypeReg, control})
	zeros := zipped(archive(entry{"./x", tar.TypeReg, strings.Repeat("\x00", slack+1<<20)}))
	head := []byte("2.0\n")
	good := simple(t, entry{"./x", tar.TypeReg, strings.Repeat("text", 1000)})
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.deb")
	if err := os.WriteFile(cut, whole[:len(whole)-20], 0o600); err != nil {
		t.Fatal(err)
	}
	data := zipped(archive(entry{"./x", tar.TypeReg, "text"}))
	for name, c := range map[string]struct{ file, want string }{
		"path outside":             {simple(t, entry{"./../x", tar.TypeReg, ""}), "'..' part climbs out"},
		"path outside, deep":       {simple(t, entry{"./usr/../../x", tar.TypeReg, ""}), "'..' part climbs out"},
		"absolute path":            {simple(t, entry{"/etc/x", tar.TypeReg, ""}), "absolute path"},
		"through its own link":     {simple(t, entry{"./x", tar.TypeSymlink, "/etc"}, entry{"./x/y", tar.TypeReg, ""}), "below x, which is no folder"},
		"hard link outside":        {simple(t, entry{"./x", tar.TypeLink, "../../etc/shadow"}), "hard link: a '..' part climbs out"},
		"hard link to the host":    {simple(t, entry{"./x", tar.TypeLink, "/etc/shadow"}), "hard link: an absolute path"},
		"hard link to what is not": {simple(t, entry{"./x", tar.TypeLink, "./etc/shadow"}), "not a file that came before"},
		"hard link to a link":      {simple(t, entry{"./s", tar.TypeSymlink, "/etc"}, entry{"./x", tar.TypeLink, "./s"}), "not a file that came before"},
		"device":                   {simple(t, entry{"./x", tar.TypeBlock, ""}), "may not bring a device"},
		"pipe":                     {simple(t, entry{"./x", tar.TypeFifo, ""}), "may not bring a device or a pipe"},
		"twice":                    {simple(t, entry{"./x", tar.TypeReg, ""}, entry{"./x", tar.TypeSymlink, "y"}), "has it twice"},
		"root is a link":           {simple(t, entry{"./", tar.TypeSymlink, "/"}), "the root must be a folder"},
		"cut off":                  {cut, "damaged or cut off"},
		"data cut off":             {pack(t, "debian-binary", head, "control.tar", plain, "data.tar.gz", data[:len(data)-12]), "unexpected EOF"},
		"bomb":                     {pack(t, "debian-binary", head, "control.tar", plain, "data.tar.gz", zeros), "unpacks to more than a package may hold"},
		"unknown compression":      {pack(t, "debian-binary", head, "control.tar", plain, "data.tar.rar", data), `compression ".rar" is unknown`},
		"no control":               {pack(t, "debian-binary", head, "control.tar", archive(), "data.tar.gz", data), "no control file"},
		"control outside":          {pack(t, "debian-binary", head, "control.tar", archive(entry{"../postinst", tar.TypeReg, ""}), "data.tar.gz", data), "not a plain file at its top"},
		"control is a link":        {pack(t, "debian-binary", head, "control.tar", archive(entry{"./control", tar.TypeSymlink, "/etc/passwd"}), "data.tar.gz", data), "not a plain file at its top"},
		"control field twice":      {pack(t, "debian-binary", head, "control.tar", archive(entry{"./control", tar.TypeReg, control + "Version: 2\n"}), "data.tar.gz", data), "Version stands there twice"},
		"other format":             {pack(t, "debian-binary", []byte("3.0\n"), "control.tar", plain, "data.tar.gz", data), "no Debian package of format 2"},
		"wrong order":              {pack(t, "debian-binary", head, "data.tar.gz", data, "control.tar", plain), "must come in this order"},
		"empty":                    {pack(t), "the ar archive is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := walk(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSatisfies(t *testing.T) {
	for _, c := range []struct {
		have, operator, want string
		is                   bool
	}{
		{"1.0~rc1", "<<", "1.0", true}, {"1.0-1", "<<", "1.0", false}, {"1:0.1", ">>", "2", true}, {"1.10", ">=", "1.9", true},
		{"1.0", "=", "1.0", true}, {"1.0a", "<<", "1.0+", true}, {"2.41-12+deb13u1", "<=", "2.41-12", false}, {"1", "", "", true}, {"1", "=", "no version!", false},
	} {
		if got := (Relation{"a", "", c.operator, c.want}).Satisfies(c.have); got != c.is {
			t.Errorf("%s %s %s: %v", c.have, c.operator, c.want, got)
		}
	}
}

func TestRelations(t *testing.T) {
	got, err := ParseRelations("a, b (<< 2:1.0~), c:any (>= 1) | d,\n e [arm64], f [amd64] | g [!amd64]", "amd64")
	if want := "[a b (<< 2:1.0~) c:any (>= 1) | d f]"; fmt.Sprint(got) != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{"a (", "a (<= 1 2)", "a (< 1)", "a (= )", "a:b-c-d-e-f"} {
		if got, err := ParseRelations(bad, "amd64"); err == nil {
			t.Errorf("%q is %s", bad, got)
		}
	}
}

// TestEachParagraph: what is wanted comes as it is written, and nothing else.
func TestEachParagraph(t *testing.T) {
	read := func(text string, wanted ...string) (out []string, err error) {
		err = EachParagraph(strings.NewReader(text), wanted, func(p Paragraph) error {
			out = append(out, p.String())
			return nil
		})
		return out, err
	}
	got, err := read("# first\n\nA: 1 \nb:\n x\n  y \n\n \t\nC: 3\r\n#\nc2: 4\n\nX: 1\n x\n", "A", "B", "C")
	if want := []string{"A: 1\nB:\n x\n  y\n", "C: 3\n", ""}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := read("a: 1\nB : 2\nc:  3\n\tx\n\n"); err != nil || !slices.Equal(got, []string{"a: 1\nB : 2\nc: 3\n\tx\n"}) {
		t.Errorf("%q, %v", got, err)
	}
	var many strings.Builder
	for i := range mostFields + 1 {
		fmt.Fprintf(&many, "F%d: x\n", i)
	}
	for text, want := range map[string]string{many.String(): "more than 1000 fields", " x\n": "line 1 continues no field", "A: 1\n\n x\n": "line 3 continues no field", "A\n": "line 1 is no field", ":x\n": "line 1 is no field",
		"A:\na: 1\n": "line 2: a stands there twice", "A: " + strings.Repeat("x", longestLine): "a line is longer than"} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"", "\n", "A: 1\n\nB: 2\n"} {
		if p, err := ParseParagraph([]byte(text)); err == nil {
			t.Errorf("%q is %q", text, p)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("!<arch>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "a.deb")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = walk(file)
	})
}

// FuzzParagraph: what is read and written again is read the same.
func FuzzParagraph(f *testing.F) {
	f.Add([]byte(control))
	f.Add([]byte("A:\n x\n#\n\ty: \nDepends: a (>= 1) | b:any,c [!amd64]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseParagraph(text)
		if err != nil {
			return
		}
		again, err := ParseParagraph([]byte(p.String()))
		if err != nil || !slices.Equal(p, again) {
			t.Errorf("%q is read as %q, then %q, %v", text, p, again, err)
		}
		for _, field := range p {
			_, _ = ParseRelations(field.Value, "amd64")
		}
	})
}
