package images

import (
	"slices"
	"testing"
)

// Every base says what its distribution calls what a node needs.
func TestCatalogue(t *testing.T) {
	if got := Names(); !slices.Equal(got, []string{"debian-trixie", "ubuntu-noble"}) {
		t.Error(got)
	}
	for _, name := range Names() {
		b, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{"name": b.Name, "doc": b.Doc, "distribution": b.Distribution, "suite": b.Suite, "archive": b.Archive,
			"security": b.Security, "hostKeyring": b.HostKeyring, "cloud kernel": b.Kernel("cloud", "amd64"), "generic kernel": b.Kernel("generic", "amd64")} {
			if text == "" {
				t.Errorf("%s: %s is missing", name, what)
			}
		}
		if b.Name != name || len(b.Arches) == 0 || !slices.Contains(b.Components, "main") || len(Keyring(name)) == 0 {
			t.Errorf("%+v", b)
		}
	}
	if _, err := Find("plan9"); err == nil {
		t.Error("plan9 is found")
	}
}

func TestPackages(t *testing.T) {
	debian, _ := Find("debian-trixie")
	ubuntu, _ := Find("ubuntu-noble")
	for got, want := range map[string]string{
		debian.Kernel("cloud", "arm64"): "linux-image-cloud-arm64", ubuntu.Kernel("cloud", "amd64"): "linux-image-virtual",
		debian.Package("systemd-repart"): "systemd-repart", ubuntu.Package("systemd-repart"): "systemd", ubuntu.Package("nftables"): "nftables",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
