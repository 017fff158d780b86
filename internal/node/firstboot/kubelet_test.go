package firstboot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// TestKubeletsTornCertificate has the power go as the kubelet writes its serving
// certificate, of which it never makes half anew; a kubelet that runs is left alone.
func TestKubeletsTornCertificate(t *testing.T) {
	_, c := sampleOf(t, virtualEndpoint, "master-join.yaml", threeMasters...)
	_, secret, err := identity.Kubelet(c, "m2", "https://10.0.0.11:6443", "none")
	if err != nil {
		t.Fatal(err)
	}
	pair, none := secret.Reveal(), "none" // certificate and key in one
	for name, at := range map[string]struct {
		crt, key      string
		runs, remains bool
	}{
		"no key":           {pair, none, false, false},
		"an empty key":     {pair, "", false, false},
		"no certificate":   {none, pair, false, false},
		"half a file":      {pair[:len(pair)/2], pair, false, false},
		"all of it":        {pair, pair, false, true},
		"a kubelet's half": {pair, none, true, true},
	} {
		a := &Agent{Root: t.TempDir()}
		put := func(name, text string) {
			if err := writeDurably(a.path(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if at.runs {
			put(filepath.Join(RunDir, kubeletFlag), "")
		}
		for file, text := range map[string]string{"/var/lib/kubelet/pki/kubelet.crt": at.crt, "/var/lib/kubelet/pki/kubelet.key": at.key} {
			if text != none {
				put(file, text)
			}
		}
		if err := a.allowKubelet(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		left, _ := filepath.Glob(a.path("/var/lib/kubelet/pki/*"))
		if _, err := os.Stat(a.path(RunDir, kubeletFlag)); err != nil || (len(left) > 0) != at.remains {
			t.Errorf("%s: %v is left, %v", name, left, err)
		}
	}
}
