package registry

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/imgbuild/imgbuild/internal/fetch"
)

type answering struct{}

func (answering) RoundTrip(*http.Request) (*http.Response, error) { return &http.Response{}, nil }

// TestGuard: without TLS only to a registry on this machine, and nowhere further in than it is.
func TestGuard(t *testing.T) {
	for _, c := range []struct {
		registry, url string
		may           bool
	}{
		{"registry.example", "https://registry.example/v2/", true},
		{"registry.example", "http://registry.example/v2/", false},
		{"registry.example", "https://blobs.example/x", true},
		{"registry.example", "http://blobs.example/x", false},
		{"registry.example", "https://127.0.0.1/x", false},
		{"registry.example", "http://127.0.0.1/x", false},
		{"registry.example", "https://localhost:8080/x", false},
		{"registry.example", "https://169.254.169.254/latest", false},
		{"registry.example", "https://192.168.1.1/x", false},
		{"registry.example", "https://[::1]/x", false},
		{"registry.example", "https://[::ffff:10.0.0.1]/x", false},
		{"registry.example", "https://[fe80::1]/x", false},
		{"registry.example", "https://0.0.0.0/x", false},
		{"10.0.0.1:5000", "https://10.0.0.1:5000/v2/", true},
		{"10.0.0.1:5000", "http://10.0.0.1:5000/v2/", false},
		{"10.0.0.1:5000", "https://10.0.0.1:6443/x", false},
		{"registry.local:5000", "http://registry.local:5000/v2/", false},
		{"localhost:5000", "http://localhost:5000/v2/", true},
		{"localhost:5000", "http://localhost:6000/v2/", false},
		{"127.0.0.1:5000", "http://127.0.0.1:5000/v2/", true},
		{"[::1]:5000", "http://[::1]:5000/v2/", true},
	} {
		r, err := name.NewRegistry(c.registry)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&guard{answering{}, r}).RoundTrip(req) //nolint:bodyclose // there is none
		if (err == nil) != c.may || err != nil && !errors.Is(err, fetch.ErrRefused) {
			t.Errorf("%s leads to %s: %v", c.registry, c.url, err)
		}
	}
}
