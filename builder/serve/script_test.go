package serve

import "testing"

func TestSayable(t *testing.T) {
	for words, want := range map[string]bool{
		"roothash=00 console=ttyS0,115200n8 a.b=c|d&e": true,
		"a=${net0/mac}":   false,
		"a='b c'":         false,
		`a="b"`:           false,
		`a=b\c`:           false,
		"a || reboot":     false,
		"a && reboot":     false,
		"a\nreboot":       false,
		"panic=10 |||":    true,
		"quiet splash #1": true,
	} {
		if got := sayable(words); got != want {
			t.Errorf("%q: %v", words, got)
		}
	}
}
