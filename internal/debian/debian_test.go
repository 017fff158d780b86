package debian

import "testing"

// TestMemory: one mirror has one memory, however its address is spelt; others have others.
func TestMemory(t *testing.T) {
	const want = "debian release http://mirror.example/x/debian trixie"
	for _, addr := range []string{"http://mirror.example/x/debian", "https://mirror.example/x/debian/", "http://Mirror.Example:80/x//debian", "HTTPS://mirror.example.:443/x/y/../debian/.", "http://mirror.example/%78/debian"} {
		if got := (Source{URL: addr, Suite: "trixie"}).memory(); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
	for _, addr := range []string{"http://mirror.example/debian", "http://mirror.example:8080/x/debian", "https://mirror.example:80/x/debian", "http://other.example/x/debian", "http://mirror.example/x/Debian"} {
		if got := (Source{URL: addr, Suite: "trixie"}).memory(); got == want {
			t.Errorf("%s: %s", addr, got)
		}
	}
	for addr, want := range map[string]string{"http://[::1]:80/": "debian release http://[::1] x", "http://[::1]": "debian release http://[::1] x", "http://10.0.0.80/a": "debian release http://10.0.0.80/a x",
		"file:///srv/debian": "debian release file:///srv/debian x", "file:/srv//debian/": "debian release file:///srv/debian x"} {
		if got := (Source{URL: addr, Suite: "x"}).memory(); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}
