package kmod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// testdata/modules.tar is four modules with what depmod(8) of kmod 34 made of them.
func TestDepmodOfModules(t *testing.T) {
	u := tree.New()
	if err := u.ApplyTar("testdata/modules.tar"); err != nil {
		t.Fatal(err)
	}
	got, err := Depmod(u, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range u.Paths() {
		name, ok := strings.CutPrefix(p, "1.0/modules.")
		if !ok || name == "order" || name == "builtin" || name == "builtin.modinfo" {
			continue
		}
		want, err := u.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		made, ok := got["modules."+name]
		if !ok {
			t.Errorf("modules.%s was not made", name)
		}
		if diff := cmp.Diff(string(want), string(made)); diff != "" {
			t.Errorf("modules.%s:\n%s", name, diff)
		}
		delete(got, "modules."+name)
	}
	if len(got) != 0 {
		t.Errorf("depmod makes no %v", got)
	}
}

func TestDepmodBadModule(t *testing.T) {
	for name, ending := range map[string]string{"no ELF": ".ko", "no xz": ".ko.xz"} {
		u := tree.New()
		if err := u.Put("m/kernel/x"+ending, tree.Node{Mode: 0o644, Content: tree.Bytes("text")}); err != nil {
			t.Fatal(err)
		}
		if _, err := Depmod(u, "m"); err == nil || !strings.Contains(err.Error(), "reading kernel module kernel/x"+ending) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
