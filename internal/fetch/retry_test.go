package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestLongest: no server has a client wait for a day.
func TestLongest(t *testing.T) {
	h := (&Options{}).retrying()
	for after, want := range map[string]time.Duration{"7": 7 * time.Second, "86400": longest, time.Now().Add(48 * time.Hour).UTC().Format(time.RFC1123): longest} {
		resp := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {after}}}
		if got := h.Backoff(time.Second, time.Minute, 0, resp); got != want {
			t.Errorf("Retry-After %s: %v, want %v", after, got, want)
		}
	}
}

// TestRetrying sends a body again as often as the server is busy.
func TestRetrying(t *testing.T) {
	said := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		said += r.Method + " " + string(body) + ";"
		switch strings.Count(said, ";") {
		case 1:
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.WriteHeader(http.StatusBadGateway)
		default:
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect) // is the caller's to follow
		}
	}))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, srv.URL, io.NopCloser(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := Retrying(http.DefaultTransport, Options{Backoff: time.Millisecond}).RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusTemporaryRedirect || said != strings.Repeat("PUT body;", 3) {
		t.Fatal(resp, err, said)
	}
	_ = resp.Body.Close()
}

type refusing struct{ asked int }

func (r *refusing) RoundTrip(*http.Request) (*http.Response, error) {
	r.asked++
	return nil, fmt.Errorf("%w: not this way", ErrRefused)
}

func TestRefusedIsFinal(t *testing.T) {
	r := &refusing{}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Retrying(r, Options{Backoff: time.Millisecond}).RoundTrip(req); !errors.Is(err, ErrRefused) || r.asked != 1 { //nolint:bodyclose // there is none
		t.Error(err, r.asked)
	}
}

// TestGivenUp: a request that ends while its answer comes is an error alone.
func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := Retrying(late(cancel), Options{}).RoundTrip(req) //nolint:bodyclose // there is none
	if resp != nil || !errors.Is(err, context.Canceled) {
		t.Error(resp, err)
	}
}

type late func()

func (l late) RoundTrip(*http.Request) (*http.Response, error) {
	l()
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}
