package verify_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/assemble"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/netboot"
)

// TestNetboot reads an image for network boot, whole and broken in one way each.
func TestNetboot(t *testing.T) {
	tr := node(t)
	p, kernel, sealed := seal(t, tr)
	file, err := assemble.Netboot(t.Context(), p, tr, kernel, sealed, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r, err := verify.Image(t.Context(), file)
	if err != nil || len(r.Findings) > 0 {
		t.Fatal(err, r)
	}
	if r.Format != "netboot" || r.UKI != "netboot.efi" || r.Kernel != "6.12.1" || string(r.Node) != facts || len(r.RootHash) != 64 {
		t.Errorf("%+v", r)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := func(word string) int {
		i := strings.Index(string(whole), word)
		if i < 0 {
			t.Fatalf("no %q in it", word)
		}
		return i
	}
	stamped, err := netboot.Fill(map[string][]byte{"imgbuild.config": []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slot, err := netboot.Find(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at         int
		text, want string // the findings, or what the error says
	}{
		"another root hash":  {at("roothash=") + 9, "0000", "verity"},
		"stamped":            {int(slot), string(stamped), "hygiene .extra/global_credentials/imgbuild.config.cred"},
		"a bit of the root":  {len(whole) - 5000, string(whole[len(whole)-5000] ^ 1), "the initrd: "},
		"a file's size":      {int(slot) + 54, "7fffffff", "a file of 2147483647 bytes"},
		"a file's name":      {int(slot) + 94, "00000000", "no header of an archive"},
		"something in zeros": {int(slot) + netboot.Slot - 8, "070701x", "the place for a machine's settings"},
	} {
		t.Run(name, func(t *testing.T) {
			broken := []byte(string(whole))
			copy(broken[c.at:], c.text)
			if err := os.WriteFile(file, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := verify.Image(t.Context(), file)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Error(err)
				}
				return
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, strings.TrimSpace(f.Check+" "+f.Path))
			}
			if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}
