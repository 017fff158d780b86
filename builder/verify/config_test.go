package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfig finds a token and a private key in a config for a host, packed as those
// formats pack them.
func TestConfig(t *testing.T) {
	const token, key = "#cloud-config\ntoken: abcdef.0123456789abcdef\n", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIGV0aGlzIGlzIG5vIGtleSBhdCBhbGwsIGl0IGlzIGEgdGVzdA==\n-----END EC PRIVATE KEY-----\n"
	url := func(text []byte) []byte {
		return []byte(`{"ignition": {}, "source": "data:;base64,` + base64.StdEncoding.EncodeToString(text) + `"}`)
	}
	for name, c := range map[string]struct {
		text  []byte
		token bool
		want  int
	}{
		"nothing":                {[]byte("#cloud-config\nhostname: a\n"), false, 0},
		"a name with a dot":      {[]byte("#cloud-config\nfile: module.configurationfile\n"), false, 0},
		"token, in a plain URL":  {[]byte(`{"ignition": {}, "source": "data:,token%3A%20abcdef.0123456789abcdef%0A"}`), false, 1},
		"token, after an escape": {[]byte(`{"ignition": {}, "contents": "[Unit]\nabcdef.0123456789abcdef"}`), false, 1},
		"token, in Butane":       {[]byte("variant: flatcar\nversion: 1.1.0\nx: abcdef.0123456789abcdef\n"), false, 1},
		"token":                  {[]byte(token), false, 1},
		"token, gzip":            {zipped(t, token), false, 1},
		"token, in a URL":        {url([]byte(token)), false, 1},
		"token, gzip in a URL":   {url(zipped(t, token)), false, 1},
		"token, asked for":       {url(zipped(t, token)), true, 0},
		"key, never asked for":   {url(zipped(t, "#cloud-config\n"+key)), true, 1},
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

// TestArchive finds a token in a file of an extension's tar.
func TestArchive(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	files := map[string]string{"usr/lib/site": "token: abcdef.0123456789abcdef\n"}
	for _, program := range nodePrograms {
		files["usr/bin/"+program] = "\x7fELF"
	}
	for name, text := range files {
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}), write(w, text)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "kubernetes.tar")
	if err := errors.Join(w.Close(), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, err := Image(t.Context(), file)
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Check != "secrets" || r.Findings[0].Path != "usr/lib/site" {
		t.Errorf("%v, %v; want the token to be found, and nothing else", r, err)
	}
}

func write(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// TestNoConfig: what is nothing that imgbuild writes is not good.
func TestNoConfig(t *testing.T) {
	seed := make([]byte, 34<<20)
	copy(seed[82:], "FAT32   ")
	copy(seed[510:], "\x55\xaa")
	for name, c := range map[string]struct{ text, want string }{
		"a shell script": {"#!/bin/sh\nexit 0\n", "it is nothing that imgbuild writes"},
		"a lock":         {`{"format": 1, "nodes": {}}`, "it is nothing that imgbuild writes"},
		"broken JSON":    {`{"ignition": {"version"`, "it is broken JSON"},
		"broken YAML":    {"#cloud-config\na: [\n", "yaml"},
		"a list":         {"#cloud-config\n- a\n", "cannot unmarshal"},
		"a comment":      {"# nothing\n", "it is nothing that imgbuild writes"},
		"no file system": {string(seed), ""},
	} {
		file := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Image(t.Context(), file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAsked: a token is where the manifest says that one was asked for.
func TestAsked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "worker.cloud-config")
	for _, c := range []struct {
		manifest string
		want     int
	}{{`{"join": "inline-join"}`, 0}, {`{}`, 1}} {
		for name, text := range map[string]string{file: "#cloud-config\ntoken: abcdef.0123456789abcdef\n", filepath.Join(dir, "worker.manifest.json"): c.manifest} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := Image(t.Context(), file); err != nil || len(r.Findings) != c.want {
			t.Errorf("%s: %v, %v", c.manifest, r, err)
		}
	}
}
