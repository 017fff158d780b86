package hwdb

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// testdata/hwdb.bin is what systemd-hwdb(8) of systemd 257 makes of the two files.
func TestBytes(t *testing.T) {
	d := New()
	for _, name := range []string{"20-a.hwdb", "60-b.hwdb"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Add("/r/usr/lib/udev/hwdb.d/"+name, text); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/hwdb.bin")
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Bytes(); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d:\n%q\n%q", len(got), len(want), got, want)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		" KEY=value\n":               "f:1: a property without a match",
		"match\n\nmatch\n KEY=1\n":   "f:2: a record without properties",
		"match\n KEY\n":              "f:2: a property is KEY=value",
		"match\n =value\n":           "f:2: a property is KEY=value",
		"match\n KEY=1\nmatch\n":     "f:3: a match right after a property",
		"# comment\nmatch\n   \n#\n": "f:3: a record without properties",
	} {
		if err := New().Add("f", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzAdd(f *testing.F) {
	f.Add("match\n KEY=1\n\nmate\n KEY=2\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := New()
		if d.Add("f", []byte(text)) == nil {
			d.Bytes()
		}
	})
}
