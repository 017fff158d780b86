package gpt

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

const mib = 1 << 20

// whole is all of a disk.
func whole(t *testing.T, f *os.File) *io.SectionReader {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return io.NewSectionReader(f, 0, info.Size())
}

func sample() Table {
	root, verity, _ := VerityGUIDs(bytes.Repeat([]byte{0xab, 0x01}, 16))
	return Table{GUID: repro.UUID("disk").String(), Partitions: []Partition{
		{Name: "esp", TypeGUID: TypeESP, GUID: repro.UUID("esp").String(), Start: mib, Size: 64 * mib},
		{Name: "root", TypeGUID: TypeRootAMD64, GUID: root, Start: 65 * mib, Size: 100 * mib, Attrs: AttrReadOnly},
		{Name: "root-verity", TypeGUID: TypeRootVerityAMD64, GUID: verity, Start: 165 * mib, Size: 2 * mib, Attrs: AttrReadOnly},
	}}
}

func disk(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func written(t *testing.T) *os.File {
	t.Helper()
	f := disk(t, sample().DiskSize())
	if err := Write(f, sample()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	f := written(t)
	got, err := Read(whole(t, f))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	if _, err := f.WriteAt(make([]byte, 512), 512); err != nil {
		t.Fatal(err)
	}
	got, err = Read(whole(t, f))
	if err != nil {
		t.Fatalf("with a damaged primary header: %v", err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("backup (-written +read):\n%s", diff)
	}
}

func TestSameBytesTwice(t *testing.T) {
	a, _ := os.ReadFile(written(t).Name())
	b, _ := os.ReadFile(written(t).Name())
	if !bytes.Equal(a, b) {
		t.Error("two runs differ")
	}
}

func TestSgdisk(t *testing.T) {
	if _, err := run.Look("sgdisk"); err != nil {
		t.Skip("sgdisk is not installed (package gdisk)")
	}
	out, err := run.Output(t.Context(), run.Cmd{Name: "sgdisk", Args: []string{"-v", written(t).Name()}})
	if err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSfdisk(t *testing.T) {
	if _, err := run.Look("sfdisk"); err != nil {
		t.Skip("sfdisk is not installed (package fdisk)")
	}
	out, err := run.Output(t.Context(), run.Cmd{Name: "sfdisk", Args: []string{"--json", written(t).Name()}})
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Table struct {
			Label, ID  string
			Partitions []struct {
				Start, Size             int64
				Type, UUID, Name, Attrs string
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	got := Table{GUID: strings.ToLower(doc.Table.ID)}
	for _, p := range doc.Table.Partitions {
		var attrs uint64
		if p.Attrs == "GUID:60" {
			attrs = AttrReadOnly
		}
		got.Partitions = append(got.Partitions, Partition{Name: p.Name, TypeGUID: strings.ToLower(p.Type),
			GUID: strings.ToLower(p.UUID), Start: p.Start * sector, Size: p.Size * sector, Attrs: attrs})
	}
	if diff := cmp.Diff(sample(), got); diff != "" || doc.Table.Label != "gpt" {
		t.Errorf("label %s (-written +sfdisk):\n%s", doc.Table.Label, diff)
	}
}

func TestVerityGUIDs(t *testing.T) {
	hash := make([]byte, 32)
	for i := range hash {
		hash[i] = byte(i)
	}
	root, verity, err := VerityGUIDs(hash)
	if err != nil {
		t.Fatal(err)
	}
	if root != "00010203-0405-0607-0809-0a0b0c0d0e0f" || verity != "10111213-1415-1617-1819-1a1b1c1d1e1f" {
		t.Errorf("root %s, verity %s", root, verity)
	}
	if _, _, err := VerityGUIDs(hash[:20]); err == nil {
		t.Error("a short hash was taken")
	}
}

func TestRefused(t *testing.T) {
	cases := map[string]struct {
		change func(*Table)
		want   string
	}{
		"overlap":   {func(t *Table) { t.Partitions[1].Start = 60 * mib }, "overlap"},
		"too big":   {func(t *Table) { t.Partitions[2].Size = 400 * mib }, "room up to"},
		"unaligned": {func(t *Table) { t.Partitions[0].Size = 5000 }, "multiples"},
		"at zero":   {func(t *Table) { t.Partitions[0].Start = 0 }, "multiples"},
		"bad guid":  {func(t *Table) { t.Partitions[0].GUID = "x" }, "GUID"},
		"no guid":   {func(t *Table) { t.GUID = "" }, "disk GUID"},
		"long name": {func(t *Table) { t.Partitions[0].Name = strings.Repeat("n", 37) }, "36"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			table := sample()
			f := disk(t, table.DiskSize())
			c.change(&table)
			if err := Write(f, table); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
