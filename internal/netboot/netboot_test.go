package netboot

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSlot(t *testing.T) {
	for name, want := range map[string]map[string][]byte{
		"empty": {},
		"two":   {"imgbuild.config": []byte("a: b\n"), "network.network.10-x": []byte("[Match]\n")},
		"full":  {"imgbuild.config": bytes.Repeat([]byte("x"), Slot-1024)},
	} {
		t.Run(name, func(t *testing.T) {
			slot, err := Fill(want)
			if err != nil || len(slot) != Slot {
				t.Fatalf("%d bytes, %v", len(slot), err)
			}
			got, err := Credentials(slot)
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Error(err, d)
			}
		})
	}
	for name, c := range map[string]struct {
		in   map[string][]byte
		want string
	}{
		"too much":  {map[string][]byte{"a": make([]byte, Slot)}, "has room for 262144"},
		"a path":    {map[string][]byte{"../init": nil}, "no name of a credential"},
		"no name":   {map[string][]byte{"": nil}, "no name of a credential"},
		"dot":       {map[string][]byte{".x": nil}, "no name of a credential"},
		"zero byte": {map[string][]byte{"a\x00b": nil}, "no name of a credential"},
	} {
		if _, err := Fill(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Credentials(make([]byte, Slot)); err == nil {
		t.Error("zeros are a slot")
	}
	if _, err := Find(strings.NewReader("MZ no image")); err == nil || !strings.Contains(err.Error(), "no unified kernel image") {
		t.Error(err)
	}
}

func FuzzCredentials(f *testing.F) {
	slot, err := Fill(map[string][]byte{"imgbuild.config": []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slot[:1024])
	f.Fuzz(func(_ *testing.T, data []byte) {
		if len(data) < Slot {
			_, _ = Credentials(append(data, make([]byte, Slot-len(data))...))
		}
	})
}
