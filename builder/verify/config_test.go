package verify

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"
)

// TestConfig finds a token and a private key in a config for a host, packed as those
// formats pack them.
func TestConfig(t *testing.T) {
	const token, key = "token: abcdef.0123456789abcdef\n", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIGV0aGlzIGlzIG5vIGtleSBhdCBhbGwsIGl0IGlzIGEgdGVzdA==\n-----END EC PRIVATE KEY-----\n"
	url := func(text []byte) []byte {
		return []byte(`{"source": "data:;base64,` + base64.StdEncoding.EncodeToString(text) + `"}`)
	}
	for name, c := range map[string]struct {
		text  []byte
		token bool
		want  int
	}{
		"nothing":              {[]byte("hostname: a\n"), false, 0},
		"token":                {[]byte(token), false, 1},
		"token, gzip":          {zipped(t, token), false, 1},
		"token, in a URL":      {url([]byte(token)), false, 1},
		"token, gzip in a URL": {url(zipped(t, token)), false, 1},
		"token, asked for":     {url(zipped(t, token)), true, 0},
		"key, never asked for": {url(zipped(t, key)), true, 1},
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Config(file, c.token)
		if err != nil || len(r.Findings) != c.want {
			t.Errorf("%s: %v, %v; want %d findings", name, r, err, c.want)
		}
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
