package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// buildForHosts writes every format of a host, and asks systemd what it thinks of the
// payloads. The one with the programs is the same for both roles.
func buildForHosts(ctx context.Context, t *testing.T, k kit.Kit, lock string, more []string) {
	sums := map[string]string{}
	for role, formats := range map[string]string{"master": "sysext", "worker": "ignition,butane,cloud-init,nocloud,nocloud-fat,sysext,sysext-images"} {
		out := filepath.Join(t.TempDir(), role)
		_, err := k.Imgbuild(ctx, append([]string{role, "-o", out, "--lock", lock, "--format", formats, "--base", "debian",
			"--set", "host.payload=https://files.example/nodes", "--set", "host.images=true"}, more...)...)
		must(t, err)
		files, err := filepath.Glob(filepath.Join(out, "kubernetes-*.raw"))
		must(t, err)
		if want := strings.Count(formats, "sysext"); len(files) != want {
			t.Fatalf("%s: %q, want %d payloads", role, files, want)
		}
		for _, file := range files {
			_, err := k.Imgbuild(ctx, "verify", file)
			must(t, err)
			if !strings.Contains(file, "images") {
				sums[role] = sha256sum(t, file)
			}
			if os.Getuid() != 0 {
				t.Log("systemd-dissect is not asked: it attaches a loop device, as root")
				continue
			}
			said, err := run.Output(ctx, run.Cmd{Name: "systemd-dissect", Args: []string{file}})
			if err != nil || !strings.Contains(string(said), "✓ extension for system") {
				t.Errorf("%s: %v\n%s", filepath.Base(file), err, said)
			}
		}
	}
	out := t.TempDir()
	for _, host := range []string{"debian", "flatcar"} { // in one folder, one after the other
		for _, url := range []string{"https://a.example", "https://b.example"} {
			_, err := k.Imgbuild(ctx, append([]string{"worker", "-o", out, "--lock", lock, "--format", "butane", "--base", host, "--set", "host.payload=" + url}, more...)...)
			must(t, err)
			text, err := os.ReadFile(filepath.Join(out, "worker.bu"))
			must(t, err)
			if !strings.Contains(string(text), url) || strings.Contains(string(text), "variant: flatcar") != (host == "flatcar") {
				t.Errorf("for %s and %s it leaves\n%.200s", host, url, text)
			}
		}
	}
	if sums["master"] != sums["worker"] {
		t.Errorf("the payload differs by role: %v", sums)
	}
}
