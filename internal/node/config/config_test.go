package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

func documents(t *testing.T) (master, worker string) {
	t.Helper()
	c, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return read(identity.MasterFile), read(identity.WorkerFile)
}

func TestSecretsDoNotShow(t *testing.T) {
	const canary = "canary.0123456789abcdef"
	s := config.NewSecret(canary)
	type holder struct{ inner config.Secret }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%p", "%w", "%z", "%10.3s"} {
		for _, value := range []any{s, &s, holder{s}, []config.Secret{s}, map[string]config.Secret{"a": s}, config.NodeConfig{Token: s}} {
			if text := fmt.Sprintf(verb, value); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T shows it", verb, value)
			}
		}
	}
	if out, err := json.Marshal(config.NodeConfig{Token: s}); err == nil {
		t.Errorf("JSON holds %s", out)
	}
	if out, err := yaml.Marshal(config.NodeConfig{Token: s}); err == nil {
		t.Errorf("YAML holds %s", out)
	}
}

func TestParse(t *testing.T) {
	master, worker := documents(t)
	for role, text := range map[string]string{config.Master: master, config.Worker: worker} {
		c, err := config.Parse([]byte(text))
		if err != nil || c.Role != role || c.Endpoint != "10.0.0.10:6443" || c.TokenTTL != "1h0m0s" {
			t.Errorf("%s: %+v, %v", role, c, err)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	master, worker := documents(t)
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":       {strings.Replace(worker, "role:", "rule:", 1), "field rule not found"},
		"unknown role":      {strings.Replace(worker, "role: worker", "role: king", 1), `role: "king": want master or worker`},
		"endpoint":          {strings.Replace(worker, "10.0.0.10:6443", "10.0.0.10", 1), "is not host:port"},
		"worker with keys":  {strings.Replace(master, "role: master", "role: worker", 1), "a worker must not hold what signs"},
		"master without":    {strings.Replace(worker, "role: worker", "role: master", 1), "a master needs the cluster's keys"},
		"not a certificate": {strings.Replace(worker, "BEGIN CERTIFICATE", "BEGIN NONSENSE", 1), "caCert: want a certificate"},
		"hostname":          {worker + "hostname: Bad_Name\n", `hostname: "Bad_Name": want a DNS label`},
		"adopt":             {worker + "adopt: \"true\"\n", `adopt: "true": want the system UUID or a MAC address`},
		"token's life":      {strings.Replace(worker, "tokenTTL: 1h0m0s", "tokenTTL: -1h", 1), `tokenTTL: "-1h": want a duration`},
		"wrong kind":        {strings.Replace(worker, "kind: NodeConfig", "kind: Pod", 1), "want imgbuild.dev/v1alpha1 and NodeConfig"},
		"two documents":     {worker + "---\n" + worker, "a second document follows"},
		"too large":         {strings.Repeat("#", 300<<10), "at most"},
		"empty":             {"", "node config"},
	} {
		_, err := config.Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	bad := strings.Replace(worker, "token: ", "token: x", 1)
	_, rest, _ := strings.Cut(bad, "token: ")
	secret, _, _ := strings.Cut(rest, "\n")
	if _, err := config.Parse([]byte(bad)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a bad token: %v", err)
	}
}
