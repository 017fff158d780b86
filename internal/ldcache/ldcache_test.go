package ldcache

import (
	"bytes"
	"context"
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Libraries of this host, in a root of their own, give the cache that ldconfig(8) makes there.
func TestAgainstLdconfig(t *testing.T) {
	const libs = "/usr/lib/x86_64-linux-gnu/"
	if err := run.Need(map[string]string{"ldconfig": "libc-bin"}); err != nil || os.Getuid() != 0 {
		t.Skip("ldconfig -r needs root")
	}
	root, u := t.TempDir(), tree.New()
	put := func(name, link string, data []byte) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		n := tree.Node{Mode: 0o644, Content: tree.Bytes(data)}
		err := os.WriteFile(file, data, 0o600)
		if link != "" {
			_ = os.Remove(file)
			n, err = tree.Node{Mode: fs.ModeSymlink | 0o777, Link: link}, os.Symlink(link, file)
		}
		if err == nil {
			err = u.Put(name, n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put("etc/ld.so.conf", "", []byte("include /etc/ld.so.conf.d/*.conf\n"))
	put("etc/ld.so.conf.d/a.conf", "", []byte("# libraries\n/usr/local/lib\n/usr/lib/x86_64-linux-gnu\n"))
	found := 0
	for _, name := range []string{"libc.so.6", "libz.so.1", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libselinux.so.1", "libdb-5.3.so"} {
		data, err := os.ReadFile(libs + name)
		if err != nil {
			continue
		}
		found++
		put("usr/lib/x86_64-linux-gnu/"+name+".0.9", "", data)
		put("usr/lib/x86_64-linux-gnu/"+name, name+".0.9", nil)
		if stem, _, _ := strings.Cut(name, ".so"); stem == "libz" {
			put("usr/lib/x86_64-linux-gnu/libz.so", name, nil) // for developers
		}
		put("usr/local/lib/"+name, "", data)
	}
	if found == 0 {
		t.Skip("this host has no libraries for x86-64")
	}
	put("usr/lib/x86_64-linux-gnu/libscript.so", "", []byte("/* GNU ld script */"))
	put("usr/lib/x86_64-linux-gnu/libgone.so.1", "nowhere", nil)
	if err := run.Run(context.Background(), run.Cmd{Name: "ldconfig", Args: []string{"-r", root, "-X"}}); err != nil {
		t.Skip(err)
	}
	want, err := os.ReadFile(filepath.Join(root, "etc/ld.so.cache"))
	if err != nil {
		t.Fatal(err)
	}
	entries, machine, err := Scan(u)
	if err != nil {
		t.Fatal(err)
	}
	_, generator, _ := bytes.Cut(want, []byte("ldconfig"))
	if got := Write(entries, machine, "ldconfig"+string(generator)); !bytes.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestCompare(t *testing.T) {
	names := []string{"liba.so.10", "liba.so.9", "liba.so", "libb-1.so", "libb.so", "libba.so"}
	slices.SortFunc(names, func(a, b string) int { return compare(b, a) })
	if want := []string{"libba.so", "libb.so", "libb-1.so", "liba.so.10", "liba.so.9", "liba.so"}; !slices.Equal(names, want) {
		t.Errorf("got %v, want %v", names, want)
	}
}

func TestHwcapsAreRefused(t *testing.T) {
	u := tree.New()
	if err := u.Put("usr/lib/glibc-hwcaps/x86-64-v3/libx.so.1", tree.Node{Mode: 0o644, Content: tree.Bytes("")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Scan(u); err == nil || !strings.Contains(err.Error(), "/usr/lib/glibc-hwcaps") {
		t.Error(err)
	}
}

func TestStringsShareTheirEnds(t *testing.T) {
	b := Write([]Entry{{"libx.so.1", "/lib/libx.so.1"}}, elf.EM_X86_64, "ldconfig")
	if n := bytes.Count(b, []byte("libx.so.1\x00")); n != 1 {
		t.Errorf("libx.so.1 is there %d times", n)
	}
}
