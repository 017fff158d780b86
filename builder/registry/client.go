// Package registry carries builds to and from an OCI registry (OCI Image Format 1.1,
// Distribution 1.1): a build is an artefact, its outputs lie in it as chunks, and a tag
// names an index with a build for each role and architecture. What a registry says is not
// believed: every name, size and digest is checked before it is used.
//
// It knows the manifest that a build writes as data alone, and builds nothing.
package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/report"
)

// Options are how a registry is talked to. Zero values stand for the defaults of fetch.Options.
type Options struct {
	Report  report.Reporter
	Retries int
	Backoff time.Duration
}

// client talks to one repository as the user that the usual Docker config knows.
type client struct {
	ref    name.Reference
	http   http.RoundTripper // signs in, and tries again
	report report.Reporter
	opt    Options
}

// Check says what is wrong with a reference, and asks nobody.
func Check(reference string) error {
	_, err := parse(reference)
	return err
}

func parse(reference string) (name.Reference, error) {
	if err := fetch.NoUser(reference); err != nil {
		return nil, fault.New(fault.Usage, "%w", err)
	}
	ref, err := name.ParseReference(reference, name.StrictValidation)
	if err != nil {
		return nil, fault.New(fault.Usage, "%q is no REGISTRY/REPOSITORY with a tag or digest: %w", reference, err)
	}
	return ref, nil
}

// connect signs in; push asks for the right to write.
func connect(ctx context.Context, reference string, push bool, o Options) (*client, error) {
	ref, err := parse(reference)
	if err != nil {
		return nil, err
	}
	repo, scope := ref.Context(), transport.PullScope
	if push {
		scope = transport.PushScope
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, fault.New(fault.Usage, "reading who you are in %s: %w", repo.RegistryStr(), err)
	}
	base := remote.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the library's own
	base.ResponseHeaderTimeout = time.Minute
	again := fetch.Retrying(&guard{base, repo.Registry}, fetch.Options{Retries: o.Retries, Backoff: o.Backoff})
	c := &client{ref: ref, report: o.Report, opt: o}
	if c.http, err = transport.NewWithContext(ctx, repo.Registry, auth, again, []string{repo.Scope(scope)}); err != nil {
		return nil, c.said(ctx, "asking", err)
	}
	return c, nil
}

// options are those of the library: c's transport asks again, and what is left for the
// library is to begin a blob anew whose upload broke off.
func (c *client) options(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.http), remote.WithRetryPredicate(brokeOff),
		remote.WithRetryBackoff(remote.Backoff{Duration: cmp.Or(c.opt.Backoff, time.Second), Factor: 2, Steps: 3})}
}

// brokeOff says whether the registry does not know how far an upload came: a request that is
// sent again would send the same bytes twice into it.
func brokeOff(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.Request != nil && !strings.Contains(answer.Request.URL.Path, "/manifests/") &&
		slices.Contains([]string{http.MethodPatch, http.MethodPut}, answer.Request.Method) &&
		slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable}, answer.StatusCode)
}

// said is an error of the registry's, or of the way there, as one line.
func (c *client) said(ctx context.Context, doing string, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	text := err.Error()
	if failed := (*url.Error)(nil); errors.As(err, &failed) { // its address may carry a signature
		text = failed.Err.Error()
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }), " ")
	if len(text) > 500 {
		text = text[:500] + "…"
	}
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		text += "; sign in first, by `docker login` or `podman login`"
	case strings.Contains(text, "certificate signed by unknown authority"):
		text += "; name the authority's certificate in SSL_CERT_FILE"
	}
	return fault.New(fault.Fetch, "%s %s: %w", doing, c.ref, &saidError{text, err})
}

// saidError has the text of what can be shown, and is what it was.
type saidError struct {
	text string
	err  error
}

func (e *saidError) Error() string { return e.text }
func (e *saidError) Unwrap() error { return e.err }

// notFound says whether the registry has no such thing.
func notFound(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// guard lets nothing in the clear out of this machine, and lets no registry lead to
// addresses that lie further in than its own.
type guard struct {
	next     http.RoundTripper
	registry name.Registry
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	own := r.URL.Host == g.registry.RegistryStr()
	switch {
	case r.URL.Scheme != "https" && (!own || !loopback(r.URL.Hostname())):
		return nil, fmt.Errorf("%w: %s://%s is not encrypted, and only a registry on this machine may do without", fetch.ErrRefused, r.URL.Scheme, r.URL.Host)
	case !own && inward(r.URL.Hostname()):
		return nil, fmt.Errorf("%w: the registry leads to %s, which is not its own address", fetch.ErrRefused, r.URL.Host)
	}
	return g.next.RoundTrip(r)
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func inward(host string) bool {
	addr, err := netip.ParseAddr(host)
	addr = addr.Unmap()
	return host == "localhost" || err == nil && (addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsUnspecified())
}
