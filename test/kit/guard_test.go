package kit

import "testing"

func TestFirmware(t *testing.T) {
	left := 0
	f := &firmware{leaves: func() { left++ }}
	for i, c := range []struct {
		text string
		want int
	}{{"BdsDxe: starting Boot0001\r\n[    0.000000] Linux ver", 0}, {"sion 6.12\r\n", 1}, {"Linux version 6.12, once more", 1}} {
		if n, err := f.Write([]byte(c.text)); n != len(c.text) || err != nil || left != c.want {
			t.Errorf("%d: %d, %v; left %d times, want %d", i, n, err, left, c.want)
		}
	}
}
