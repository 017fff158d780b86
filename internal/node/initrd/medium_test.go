//go:build linux

package initrd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// TestMedium finds the image on a medium by its root hash, and no other.
func TestMedium(t *testing.T) {
	_, dev := machine(t)
	inner, err := os.ReadFile(filepath.Join(dev, "vda"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sr0")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table := gpt.Table{GUID: repro.UUID("m").String(), Partitions: []gpt.Partition{
		{Name: "esp", TypeGUID: gpt.TypeESP, GUID: repro.UUID("me").String(), Start: mib, Size: mib},
		{Name: medium.Partition, TypeGUID: medium.TypeImage, GUID: repro.UUID("mi").String(), Start: 2 * mib, Size: int64(len(inner))},
	}}
	_, err = f.WriteAt(inner, 2*mib)
	if err := errors.Join(err, f.Truncate(table.DiskSize()), gpt.Write(f, table)); err != nil {
		t.Fatal(err)
	}
	got, ok := onMedium(file, hash)
	want := found{file, extent{repro.UUID("mi").String(), 2 * mib, int64(len(inner))}, extent{uuidOf(hash[:16]), 4 * mib, mib}, extent{uuidOf(hash[16:]), 5 * mib, mib}}
	if !ok || cmp.Diff(want, got, cmp.AllowUnexported(found{}, extent{})) != "" {
		t.Errorf("%v %+v", ok, got)
	}
	other := append([]byte{1}, hash[1:]...)
	for device, hash := range map[string][]byte{file: other, filepath.Join(dev, "vda"): hash, filepath.Join(dev, "vdb"): hash, filepath.Join(dev, "vdz"): hash} {
		if m, ok := onMedium(device, hash); ok {
			t.Errorf("%s: %+v", device, m)
		}
	}
}
