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
		"unknown key":       {strings.Replace(worker, "role:", "rule:", 1), "rule is not a key of it"},
		"unknown role":      {strings.Replace(worker, "role: worker", "role: king", 1), `line 4: role: "king": want master or worker`},
		"endpoint":          {strings.Replace(worker, "10.0.0.10:6443", "10.0.0.10", 1), "is not host:port"},
		"worker with keys":  {strings.Replace(master, "role: master", "role: worker", 1), "a worker must not hold what signs"},
		"master without":    {strings.Replace(worker, "role: worker", "role: master", 1), "a master needs the cluster's keys"},
		"worker that joins": {worker + "joins: true\n", "these are a master's"},
		"worker's masters":  {worker + "masters: [10.0.0.11]\n", "these are a master's"},
		"vip without list":  {master + "vip: true\n", "vip: masters must list"},
		"vip of a name":     {strings.Replace(master, "10.0.0.10:6443", "api:6443", 1) + "vip: true\nmasters: [10.0.0.11, 10.0.0.12]\n", "must be an IP address"},
		"vip is a master's": {master + "vip: true\nmasters: [10.0.0.10, 10.0.0.12]\n", "is the virtual address"},
		"two families":      {master + "vip: true\nmasters: [10.0.0.11, 'fd00::1']\n", "both be IPv4 or both IPv6"},
		"loopback master":   {master + "masters: [127.0.0.1]\n", "masters[0]"},
		"too many masters":  {master + "masters: [10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4, 10.1.0.5, 10.1.0.6, 10.1.0.7, 10.1.0.8, 10.1.0.9, 10.1.0.10]\n", "at most 9"},
		"nodeIP elsewhere":  {master + "nodeIP: 10.0.0.20\nmasters: [10.0.0.11]\n", "nodeIP: 10.0.0.20 is not among masters"},
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
	_, err := config.Parse([]byte(worker + "hostname: Bad\nsshAuthorizedKeys:\n- ssh-ed25519 AAAA\n- none\n"))
	at := strings.Count(worker, "\n")
	if want := fmt.Sprintf("node config: line %d: hostname: \"Bad\": want a DNS label\nline %d: sshAuthorizedKeys[1]: want one public key on one line", at+1, at+4); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	bad := strings.Replace(worker, "token: ", "token: x", 1)
	_, rest, _ := strings.Cut(bad, "token: ")
	secret, _, _ := strings.Cut(rest, "\n")
	if _, err := config.Parse([]byte(bad)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a bad token: %v", err)
	}
}
