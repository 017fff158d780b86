package kubeapi_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kubeapi"
)

const form = `apiVersion: v1
kind: Config
current-context: c
clusters:
- name: demo
  cluster: {server: "%s", certificate-authority-data: %s}
contexts:
- name: other
  context: {cluster: none, user: none}
- name: c
  context: {cluster: demo, user: ann}
users:
- name: ann
  user: {token: canary-token}
`

// serve answers with a code and a body, and with what the user showed of himself.
func serve(t *testing.T, code int, body string) (*httptest.Server, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer canary-token" {
			code = http.StatusTeapot
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s, fmt.Sprintf(form, s.URL, base64.StdEncoding.EncodeToString(ca))
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		code int
		body string
		kind fault.Kind
		want string
	}{
		{200, `{"gitVersion":"v1"}`, "", ""},
		{200, `<html>`, fault.Unreachable, "reading the answer to /version"},
		{401, `{}`, fault.Trust, "does not know ann"},
		{403, `{"message":"no, ann"}`, fault.Trust, "ann may not GET /version: 403 Forbidden no, ann"},
		{404, `{}`, fault.Unreachable, "404 Not Found"},
		{503, `not json`, fault.Unreachable, "503 Service Unavailable"},
	} {
		_, text := serve(t, c.code, c.body)
		api, err := kubeapi.New([]byte(text), kubeapi.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ GitVersion string }
		err = api.Get(t.Context(), "/version", &v)
		if c.want == "" {
			if err != nil || v.GitVersion != "v1" || api.Cluster != "demo" || api.User != "ann" || !api.Answers(t.Context()) {
				t.Errorf("%+v, %v", v, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind || strings.Contains(err.Error(), "canary") {
			t.Errorf("%d: %v (%s), want %q (%s)", c.code, err, fault.KindOf(err), c.want, c.kind)
		}
		if forbidden := (*kubeapi.Forbidden)(nil); errors.As(err, &forbidden) != (c.code == 403) {
			t.Errorf("%d: forbidden: %v", c.code, c.code != 403)
		}
	}
}

func TestConnections(t *testing.T) {
	s, text := serve(t, 200, `{}`)
	ask := func(ctx context.Context, server string) error {
		api, err := kubeapi.New([]byte(text), kubeapi.Options{Server: server})
		if err != nil {
			return err
		}
		return api.Get(ctx, "/version", nil)
	}
	if err := ask(t.Context(), s.Listener.Addr().String()); err != nil {
		t.Error(err)
	}
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	for server, c := range map[string]struct {
		kind fault.Kind
		want string
	}{
		"127.0.0.1:1":       {fault.Unreachable, "does not answer"},
		"localhost:" + port: {fault.Trust, "a certificate for other names"},
		"here":              {fault.Usage, `server "here": want HOST:PORT`},
	} {
		if err := ask(t.Context(), server); err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v (%s)", server, err, fault.KindOf(err))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func TestKubeconfigsThatAreNone(t *testing.T) {
	_, text := serve(t, 200, `{}`)
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "this is no kubeconfig"},
		"other kind": {strings.Replace(text, "kind: Config", "kind: Secret", 1), "this is no kubeconfig"},
		"context":    {strings.Replace(text, "current-context: c", "current-context: d", 1), `current-context "d" is not among`},
		"cluster":    {strings.Replace(text, "- name: demo", "- name: else", 1), `cluster "demo": server "": want https`},
		"user":       {strings.Replace(text, "- name: ann", "- name: bob", 1), `user "ann" is not among its users`},
		"plain http": {strings.Replace(text, "https://", "http://", 1), "want https://HOST:PORT"},
		"no CA":      {strings.Replace(text, "certificate-authority-data: ", "certificate-authority-data: x", 1), "holds no CA certificate"},
		"insecure":   {strings.Replace(text, "cluster: {", "cluster: {insecure-skip-tls-verify: true, ", 1), "the CA is always checked"},
		"exec":       {strings.Replace(text, "{token: canary-token}", "{exec: {command: canary-token}}", 1), "programs that fetch one (exec) are not run"},
		"no base64":  {strings.Replace(text, "{token: canary-token}", "{client-certificate-data: canary-token!, client-key-data: canary-token!}", 1), "not base64"},
		"no pair":    {strings.Replace(text, "{token: canary-token}", "{client-certificate-data: eHg=, client-key-data: eHg=}", 1), "do not belong together"},
		"no file":    {strings.Replace(text, "{token: canary-token}", "{client-certificate: /none/x, client-key: /none/x}", 1), "/none/x: no such file"},
	} {
		_, err := kubeapi.New([]byte(c.text), kubeapi.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != fault.Usage || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v (%s), want %q", name, err, fault.KindOf(err), c.want)
		}
	}
}

// TestFiles reads what a kubelet's kubeconfig names instead of holding it.
func TestFiles(t *testing.T) {
	s, text := serve(t, 200, `{}`)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(text, "certificate-authority-data: ")
	_, rest, _ = strings.Cut(rest, "}")
	api, err := kubeapi.New([]byte(head+"certificate-authority: "+file+"}"+rest), kubeapi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Get(t.Context(), "/version", nil); err != nil {
		t.Error(err)
	}
}
