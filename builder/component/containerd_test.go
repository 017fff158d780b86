package component_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

var (
	tomlTable = regexp.MustCompile(`^\[([A-Za-z0-9._"-]+)\]$`)
	tomlValue = regexp.MustCompile(`^([a-zA-Z_]+) = ("[^"\\]*"|true|false|-?[0-9]+|\[("[^"\\]*"(, )?)*\])$`)
)

// readTOML reads the part of TOML that the template writes: tables by their full
// names, keys with plain values. Anything else, and all that is there twice, is an error.
func readTOML(t *testing.T, text string) map[string]string {
	t.Helper()
	out, table := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value := "", ""
		if m := tomlTable.FindStringSubmatch(line); m != nil {
			table = strings.ReplaceAll(m[1], `"`, "'") + "."
			key = table
		} else if m := tomlValue.FindStringSubmatch(line); m != nil {
			key, value = table+m[1], m[2]
		} else if line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("not understood: %q", line)
			continue
		} else {
			continue
		}
		if _, twice := out[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		out[key] = value
	}
	return out
}

func TestContainerdConfig(t *testing.T) {
	const options = "containerd.runtimes.runc.options."
	for _, c := range []struct {
		name, version, images, runtime, bins string
		sets                                 []string
		pause                                string
		stats                                string // 1.7 has no such collector: the key would be its snapshots', and a number
	}{
		{name: "2.x", version: "3", images: "plugins.'io.containerd.cri.v1.images'.", runtime: "plugins.'io.containerd.cri.v1.runtime'.",
			bins: `cni.bin_dirs=["/opt/cni/bin"]`, pause: "pinned_images.sandbox", stats: `"10s"`},
		{name: "1.7", version: "2", images: "plugins.'io.containerd.grpc.v1.cri'.", runtime: "plugins.'io.containerd.grpc.v1.cri'.",
			bins: `cni.bin_dir="/opt/cni/bin"`, pause: "sandbox_image", sets: []string{"containerd.source=base"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := file(decide(t, "master", c.sets...), "/etc/containerd/config.toml").Text
			got := readTOML(t, text)
			key, value, _ := strings.Cut(c.bins, "=")
			for key, want := range map[string]string{
				"version":                              c.version,
				"grpc.address":                         `"/run/containerd/containerd.sock"`,
				"imports":                              `["/etc/containerd/conf.d/*.toml"]`,
				c.images + c.pause:                     `"` + pause + `"`,
				c.images + "registry.config_path":      `"/etc/containerd/certs.d"`,
				c.runtime + options + "SystemdCgroup":  "true",
				c.runtime + options + "BinaryName":     `"runc"`,
				c.runtime + "cni.conf_dir":             `"/etc/cni/net.d"`,
				c.runtime + key:                        value,
				c.runtime + "enable_unprivileged_icmp": "true",
				c.runtime + "stats_collect_period":     c.stats,
			} {
				if got[key] != want {
					t.Errorf("%s is %s, want %s", key, got[key], want)
				}
			}
			if strings.Contains(text, "disabled_plugins") {
				t.Error("plugins are disabled; the CRI may be among them")
			}
		})
	}
}

// TestContainerdReadsItsConfig asks a real containerd 2, where CONTAINERD names one.
func TestContainerdReadsItsConfig(t *testing.T) {
	containerd := os.Getenv("CONTAINERD")
	if containerd == "" {
		t.Skip("CONTAINERD names no containerd; the cluster test runs the real one on this config")
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	text := strings.Replace(file(decide(t, "master"), "/etc/containerd/config.toml").Text, "/etc/containerd/conf.d", t.TempDir(), 1)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run.Output(context.Background(), run.Cmd{Name: containerd, Args: []string{"--config", config, "config", "dump"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SystemdCgroup = true", pause, "/opt/cni/bin", "discard_unpacked_layers = true"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("containerd does not see %q in\n%s", want, out)
		}
	}
}
