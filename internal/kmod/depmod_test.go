package kmod

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

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

// A module says the same of itself however it is packed.
func TestDepmodOfPackedModules(t *testing.T) {
	plain := tree.New()
	if err := plain.ApplyTar("testdata/modules.tar"); err != nil {
		t.Fatal(err)
	}
	packed := tree.New()
	for _, p := range plain.Paths() {
		text, err := plain.ReadFile(p)
		if err != nil {
			continue // a folder
		}
		if strings.HasSuffix(p, ".ko") {
			z, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			p, text = p+".zst", z.EncodeAll(text, nil)
		}
		if err := packed.Put(p, tree.Node{Mode: 0o644, Content: tree.Bytes(text)}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := Depmod(plain, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Depmod(packed, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	if list := string(got["modules.dep"]); !strings.Contains(list, ".ko.zst:") {
		t.Errorf("no module is packed: %s", list)
	}
	for _, name := range []string{"modules.alias", "modules.symbols", "modules.alias.bin", "modules.symbols.bin"} {
		if diff := cmp.Diff(string(want[name]), string(got[name])); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestDepmodBadModule(t *testing.T) {
	for name, ending := range map[string]string{"no ELF": ".ko", "no xz": ".ko.xz", "no zstd": ".ko.zst"} {
		u := tree.New()
		if err := u.Put("m/kernel/x"+ending, tree.Node{Mode: 0o644, Content: tree.Bytes("text")}); err != nil {
			t.Fatal(err)
		}
		if _, err := Depmod(u, "m"); err == nil || !strings.Contains(err.Error(), "reading kernel module kernel/x"+ending) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
