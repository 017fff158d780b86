// Package kubeapi asks a cluster's API over plain HTTP, as the user of a
// kubeconfig. It is a few objects read or made, for people; it watches nothing,
// caches nothing, and knows no node.
//
// Its errors say what to do, and carry the fault kind that decides the exit code.
package kubeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Options change how the API is reached.
type Options struct {
	Server string // host:port in place of the kubeconfig's; the certificate must hold for it
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is one user of one cluster.
type Client struct {
	Cluster, Server, User string // as the kubeconfig names them
	CA                    []byte // PEM

	token string
	http  *http.Client
}

// timeout bounds one question.
const timeout = time.Minute

// New reads a kubeconfig. One whose certificate has ended is refused here: the API
// would only say that it does not know the user.
func New(kubeconfig []byte, o Options) (*Client, error) {
	k, err := parse(kubeconfig)
	if err != nil {
		return nil, fault.New(fault.Usage, "kubeconfig: %w", err)
	}
	c := &Client{Cluster: k.cluster, Server: k.server, User: k.user, CA: k.ca, token: k.token}
	if o.Server != "" {
		if _, _, err := net.SplitHostPort(o.Server); err != nil {
			return nil, fault.New(fault.Usage, "server %q: want HOST:PORT", o.Server)
		}
		c.Server = "https://" + o.Server
	}
	t := &tls.Config{RootCAs: k.pool, MinVersion: tls.VersionTLS12}
	if k.pair != nil {
		t.Certificates = []tls.Certificate{*k.pair}
		if end := k.pair.Leaf.NotAfter; repro.Now().After(end) {
			return nil, fault.New(fault.Trust, "the kubeconfig's certificate of %s ended at %s: mint another by `imgbuild cluster kubeconfig`", k.user, end.Format(time.RFC3339))
		}
	}
	c.http = &http.Client{Timeout: timeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: o.Dial, TLSClientConfig: t}}
	return c, nil
}

// Get reads one object or list.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Create makes the object that body, JSON, says. body may be secret: it is in no error.
func (c *Client) Create(ctx context.Context, path string, body []byte) error {
	return c.do(ctx, http.MethodPost, path, body, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return c.explain(ctx, err)
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode >= http.StatusBadRequest {
		return c.refused(res, method, path)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<20)).Decode(out); err != nil {
		return fault.New(fault.Unreachable, "%s: reading the answer to %s: %w", c.Server, path, err)
	}
	return nil
}

// explain says what a connection that did not come about means.
func (c *Client) explain(ctx context.Context, err error) error {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var bad x509.CertificateInvalidError
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case errors.As(err, &unknown):
		return fault.New(fault.Trust, "%s answers with a certificate that this cluster's CA did not sign: it is another cluster, or something between; nothing was sent", c.Server)
	case errors.As(err, &host):
		return fault.New(fault.Trust, "%s answers with a certificate for other names: %w", c.Server, host)
	case errors.As(err, &bad) && bad.Reason == x509.Expired:
		return fault.New(fault.Trust, "the certificate of %s is not valid now: check this machine's clock; else `kubeadm certs renew` on the masters", c.Server)
	}
	var plain *net.OpError
	cause := err
	if errors.As(err, &plain) {
		cause = plain
	}
	return fault.New(fault.Unreachable, "%s does not answer: %w; is a master on, and is there a way to it? Another address of it goes by --server", c.Server, cause)
}

// refused says what an answer that is an error means.
func (c *Client) refused(res *http.Response, method, path string) error {
	var status struct{ Message string }
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // the code says it, too
	_ = json.Unmarshal(data, &status)
	said := strings.TrimSpace(res.Status + " " + status.Message)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return fault.New(fault.Trust, "%s does not know %s: the kubeconfig is another cluster's, or its certificate has ended", c.Server, c.User)
	case http.StatusForbidden:
		return &Forbidden{fault.New(fault.Trust, "%s may not %s %s: %s", c.User, method, path, said)}
	}
	return fault.New(fault.Unreachable, "%s: %s %s: %s", c.Server, method, path, said)
}

// Forbidden is the error of a user who may not do what he asked for.
type Forbidden struct{ err error }

func (f *Forbidden) Error() string { return f.err.Error() }

// Unwrap gives the error with its kind.
func (f *Forbidden) Unwrap() error { return f.err }

// describe puts the place before an error of the kubeconfig.
func describe(kind, name string, err error) error { return fmt.Errorf("%s %q: %w", kind, name, err) }

// Answers says whether an API with a certificate of this cluster is there,
// whatever it answers.
func (c *Client) Answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Server+"/version", nil)
	if err != nil {
		return false
	}
	res, err := c.http.Do(req)
	return err == nil && res.Body.Close() == nil
}
