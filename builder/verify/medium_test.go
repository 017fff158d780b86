package verify_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/assemble"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/verify"
)

// TestMedium reads an install medium, whole and broken in one way each.
func TestMedium(t *testing.T) {
	tr := node(t)
	p, kernel, sealed := seal(t, tr)
	esp, err := assemble.Medium(t.Context(), p, tr, kernel, sealed, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	disk, err := assemble.Build(t.Context(), p, tr, kernel, sealed)
	if err != nil {
		t.Fatal(err)
	}
	format, err := output.Find("iso")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "worker.iso")
	if err := format.Write(t.Context(), &output.Made{Disk: disk.Path, Medium: esp, ID: p.ID, Role: "worker"}, file, false); err != nil {
		t.Fatal(err)
	}
	r, err := verify.Image(t.Context(), file)
	if err != nil || len(r.Findings) > 0 {
		t.Fatal(err, r)
	}
	if r.Format != "iso" || r.Size != disk.Size || r.RootHash != disk.RootHash || string(r.Node) != facts || strings.Contains(r.Cmdline, "medium") {
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
	for name, c := range map[string]struct {
		at         int
		text, want string // a finding, or what the error says
	}{
		"another root hash":    {at("roothash=") + 9, "0000", "its root hash is 0000"},
		"a kernel of a disk":   {at(" imgbuild.medium"), " imgbuild_medium", "it would not look for the medium"},
		"another boot image":   {19*2048 + 40, "\x01", "the boot catalog does not let UEFI boot"},
		"a catalog's checksum": {19*2048 + 5, "x", "the boot catalog does not let UEFI boot"},
		"no boot record":       {17*2048 + 7, "X", "no El Torito boot catalog"},
		"a shorter volume":     {16*2048 + 80, "\x01", "the volume has"},
		"a file elsewhere":     {at("DISK.RAW;1") - 31, "\x01", "DISK.RAW;1: "},
		"the table":            {600, "x", "partition table"},
		"a bit of the root":    {len(whole) - 3<<20, string(whole[len(whole)-3<<20] ^ 1), "verity"},
	} {
		broken := filepath.Join(t.TempDir(), "broken.iso")
		bad := append([]byte(nil), whole...)
		copy(bad[c.at:], c.text)
		if err := os.WriteFile(broken, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got := ""
		r, err := verify.Image(t.Context(), broken)
		if err != nil {
			got = err.Error()
		} else {
			for _, f := range r.Findings {
				got += f.String() + "\n"
			}
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
