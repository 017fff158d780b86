package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// TokenSecret is the Secret that makes a running cluster know the token, as
// kubeadm writes it (bootstrap.kubernetes.io/token). JSON, which kubectl and the
// API both take. The text is a secret. The lifetime begins now.
func (c *Cluster) TokenSecret() (config.Secret, error) {
	id, secret := c.token()
	data := map[string]string{
		"token-id": id, "token-secret": secret, "description": "join token, made by imgbuild cluster token",
		"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
		"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
	}
	if c.TokenTTL > 0 {
		data["expiration"] = repro.Now().Add(c.TokenTTL).UTC().Format(time.RFC3339)
	}
	text, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
		"metadata": map[string]string{"name": "bootstrap-token-" + id, "namespace": "kube-system"}, "stringData": data,
	}, "", " ")
	return config.NewSecret(string(text) + "\n"), err
}

// CheckTokenTTL says what is wrong with a token's lifetime.
func CheckTokenTTL(ttl time.Duration) error {
	switch {
	case ttl < 0:
		return fmt.Errorf("lifetime %v: want a duration such as 24h, or 0 for a token that never ends", ttl)
	case ttl > 0 && ttl < time.Second:
		return errors.New("the token would end at once: want a duration such as 24h")
	}
	return nil
}
