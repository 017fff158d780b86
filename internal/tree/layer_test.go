package tree

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestApplyLayer holds upper layers, as overlayfs has to see them, against what the
// archives say.
func TestApplyLayer(t *testing.T) {
	tr := New()
	for i, l := range []struct {
		items []item
		want  string
	}{
		{[]item{folder("usr/"), folder("usr/bin/"), file("usr/bin/a", "a"), file("usr/bin/b", "b"), soft("bin", "usr/bin"), folder("etc/"), file("etc/x", "x"), folder("opt/"), file("opt/old", "o")},
			". bin→usr/bin etc/ etc/x opt/ opt/old usr/ usr/bin/ usr/bin/a usr/bin/b"},
		{[]item{file("bin/c", "by the link"), file("usr/bin/.wh.a", ""), hard("usr/bin/bb", "usr/bin/b")},
			". usr/ usr/bin/ usr/bin/a! usr/bin/bb usr/bin/c"},
		{[]item{file("etc/.wh..wh..opq", ""), file("etc/y", "y"), file(".wh.opt", ""), folder("opt/"), file("opt/new", "n"), file("usr/bin/.wh.c", ""), file("usr/bin/c", "again")},
			". etc/* etc/y opt/* opt/new usr/ usr/bin/ usr/bin/c"},
		{[]item{file("deep/er/.wh.nothing", "")}, ". deep/ deep/er/ deep/er/nothing!"},
	} {
		own, err := tr.ApplyLayer(save(t, pack(t, l.items...)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		_ = own.Walk(func(p string, n *Node) error {
			switch {
			case p == ".":
			case n.Link != "":
				p += "→" + n.Link
			case n.Mode.IsDir():
				p += "/" + strings.Repeat("*", len(n.Xattrs["trusted.overlay.opaque"]))
			case !n.Mode.IsRegular():
				if n.Rdev != 0 || fmt.Sprint(n.Mode) != "Dc---------" {
					t.Errorf("%s is %v %d", p, n.Mode, n.Rdev)
				}
				p += "!"
			}
			got = append(got, p)
			return nil
		})
		if diff := cmp.Diff(l.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("layer %d: %s", i, diff)
		}
	}
	if _, ok := tr.Get("usr/bin/a"); ok {
		t.Error("what a layer takes away is still there")
	}
	all := New()
	if err := all.Graft("a/b", tr); err != nil {
		t.Fatal(err)
	}
	if text, err := all.ReadFile("a/b/usr/bin/c"); err != nil || string(text) != "again" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestForgedOverlay refuses an archive that speaks to overlayfs itself.
func TestForgedOverlay(t *testing.T) {
	f := file("a", "a")
	f.Format, f.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}
	if _, err := apply(t, []item{f}); err == nil || !strings.Contains(err.Error(), "overlayfs' own") {
		t.Error(err)
	}
}
