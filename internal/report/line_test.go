package report

import "testing"

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		"worker.raw: “good”, 5 µs…": "worker.raw: “good”, 5 µs…",
		`C:\x "y"`:                  `C:\x "y"`,
		"a\tb":                      "a\tb",
		"a\nb\r\n":                  `a\nb\r\n`,
		"a\vb\fc":                   `a\vb\fc`,
		"a\u0085b":                  `a\u0085b`,
		"a\u2028b\u2029c":           `a\u2028b\u2029c`,
		"\x1b[2J\x7f":               `\x1b[2J\x7f`,
		"\u202eraw":                 `\u202eraw`,
		"\xff\x85, \ufffd":          `\xff\x85, ` + "\ufffd",
	} {
		if got := Line(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
