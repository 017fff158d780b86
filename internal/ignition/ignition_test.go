package ignition

import (
	"slices"
	"strings"
	"testing"

	"github.com/coreos/ignition/v2/config"
)

// of2 is a config as Cluster API's kubeadm provider writes them.
const of2 = `{"ignition": {"version": "2.3.0"},
	"storage": {"files": [{"filesystem": "root", "path": "/etc/kubeadm.sh", "mode": 448, "contents": {"source": "data:,echo"}}]},
	"systemd": {"units": [{"name": "kubeadm.service", "enabled": true, "contents": "[Service]\nExecStart=/etc/kubeadm.sh\n"}, {"name": "other.service", "mask": true}]}}`

// TestCurrent has Ignition itself read what comes of old configs.
func TestCurrent(t *testing.T) {
	now, err := Current([]byte(of2))
	if err != nil {
		t.Fatal(err)
	}
	c, report, err := config.Parse(now)
	if err != nil || report.IsFatal() {
		t.Fatalf("%v %s\n%s", err, report, now)
	}
	f, u := c.Storage.Files, c.Systemd.Units
	if len(f) != 1 || f[0].Path != "/etc/kubeadm.sh" || *f[0].Mode != 0o700 || !*f[0].Overwrite || *f[0].Contents.Source != "data:,echo" || len(u) != 2 || !*u[1].Mask {
		t.Errorf("%s", now)
	}
	if enabled, err := Units(now); err != nil || !slices.Equal(enabled, []string{"kubeadm.service"}) {
		t.Error(enabled, err)
	}
	const of3 = `{"ignition":{"version":"3.4.0"}}`
	if same, err := Current([]byte(of3)); err != nil || string(same) != of3 {
		t.Errorf("%s, %v", same, err)
	}
}

func TestNoConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "no JSON object",
		"#cloud-config\n":                    "no JSON object",
		`{"ignition": 1}`:                    "cannot unmarshal",
		`{"a": 1}`:                           "no version",
		`{"ignition": {"version": ""}}`:      "no version",
		`{"ignition": {"version": "2.9.0"}}`: "Ignition 2.9.0",
		`{"ignition": {"version": "2.3.0"}, "storage": {"files": [{"filesystem": "other", "path": "/a"}]}}`: "Ignition 2.3.0",
		`{"ignition": {"version": "2.3.0"}, "storage": {"files": [{"filesystem": "root", "path": "a"}]}}`:   "Ignition 2.3.0",
	} {
		if _, err := Current([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if Is([]byte("#cloud-config\n{}")) || !Is([]byte(of2)) {
		t.Error("what is one, and what is none, is taken for the other")
	}
}

func FuzzCurrent(f *testing.F) {
	f.Add([]byte(of2))
	f.Add([]byte(`{"ignition":{"version":"3.4.0"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		now, err := Current(data)
		if err != nil {
			return
		}
		if !Is(now) {
			t.Errorf("%q becomes %q", data, now)
		}
	})
}
