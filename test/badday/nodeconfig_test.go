package badday

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/erofs/go-erofs"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestHostileNodeConfig puts each word into each text of a node config. It is
// refused, without repeating what may be a secret, or the worker's own kubeadm
// takes the configuration that the first boot makes of it.
func TestHostileNodeConfig(t *testing.T) {
	const name = "a hostile word in a field of a node config"
	good(t)
	kubeadm := extract(t, "usr/bin/kubeadm")
	if err := tools.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	paths := texts(reflect.TypeFor[config.NodeConfig](), nil)
	if len(paths) < 15 {
		t.Fatalf("found only %v", paths)
	}
	accepted := 0
	for _, role := range []string{config.Master, config.Worker} {
		data, err := os.ReadFile(filepath.Join(folder, "cluster", role+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, kubeadm, data); err != nil {
			t.Fatalf("%s, untouched: %v", role, err)
		}
		for _, path := range paths {
			for _, word := range append([]string{"-1h", "0s", "1ns", "::1", "10.0.0.10", "ssh-ed25519 AAAA x"}, hostile...) {
				var doc map[string]any
				if err := yaml.Unmarshal(data, &doc); err != nil {
					t.Fatal(err)
				}
				if !set(doc, path, word) {
					continue
				}
				text, err := yaml.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := config.Parse(text); err != nil {
					held(t, name, (strings.Contains(err.Error(), path[len(path)-1]) || strings.Contains(err.Error(), "yaml: line ")) && !strings.Contains(err.Error(), "PRIVATE KEY") && len(err.Error()) < 6000,
						"%s: %v = %.40q: refused without saying where: %.300s", role, path, word, err)
					continue
				}
				accepted++
				err = validate(t, kubeadm, text)
				held(t, name, err == nil, "%s: %v = %.40q was accepted: %v", role, path, word, err)
			}
		}
	}
	t.Logf("%d fields, %d accepted", len(paths), accepted)
}

// texts finds the path of every text in a type, by its YAML tags.
func texts(t reflect.Type, path []string) [][]string {
	switch {
	case t == reflect.TypeFor[config.Secret]() || t.Kind() == reflect.String:
		return [][]string{path}
	case t.Kind() == reflect.Bool:
		return nil
	case t.Kind() == reflect.Pointer:
		return texts(t.Elem(), path)
	case t.Kind() == reflect.Slice:
		return texts(t.Elem(), path)
	}
	var out [][]string
	for i := range t.NumField() {
		tag, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		out = append(out, texts(t.Field(i).Type, append(path[:len(path):len(path)], tag))...)
	}
	return out
}

// set puts a word where a path leads, and says whether this role has the place.
func set(doc map[string]any, path []string, word string) bool {
	if len(path) == 2 {
		inner, ok := doc[path[0]].(map[string]any)
		return ok && set(inner, path[1:], word)
	}
	if path[0] == "sshAuthorizedKeys" || path[0] == "masters" {
		doc[path[0]] = []string{word}
	} else {
		doc[path[0]] = word
	}
	return true
}

// validate asks kubeadm what it says of the configuration that a node would write.
func validate(t *testing.T, kubeadm string, nodeConfig []byte) error {
	t.Helper()
	c, err := config.Parse(nodeConfig)
	if err != nil {
		return err
	}
	facts := config.Facts{KubernetesVersion: "1.37.2", PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", DNSDomain: "cluster.local", ProxyMode: "nftables"}
	hostname := c.Hostname
	if hostname == "" {
		hostname = c.Role
	}
	text, err := firstboot.KubeadmConfig(facts, c, hostname)
	if err != nil {
		return err
	}
	file := filepath.Join(t.TempDir(), "kubeadm.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return run.Run(t.Context(), run.Cmd{Name: kubeadm, Args: []string{"config", "validate", "--config", file}})
}

// extract takes one file out of the good build's root.
func extract(t *testing.T, name string) string {
	t.Helper()
	image := filepath.Join(folder, "first", "worker.raw")
	r, err := verify.Image(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := erofs.Open(io.NewSectionReader(f, r.Partitions[1].Start, r.Partitions[1].Size))
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(name))
	if err := os.WriteFile(out, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}
