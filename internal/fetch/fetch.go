// Package fetch downloads over HTTP(S), or from a copy on the disk (file:///), into the content store. What is wanted is
// given as plain values: URL, size, SHA-256. Bytes are hashed as they stream,
// under a size cap, and only what has the right digest is ever filed.
//
// It knows nothing of what it fetches, and does not resolve or decide anything.
package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/store"
)

// ErrNotFound says that the server answered 404 or 410.
var ErrNotFound = errors.New("not found on the server")

// ErrMismatch says that the bytes are not the ones that were asked for.
var ErrMismatch = errors.New("not the bytes that were asked for")

// ErrOffline says that something would have to come over a network that may not be used.
var ErrOffline = errors.New("not in the cache, and the network may not be used")

// ErrRefused is what a transport says that will not do what it is asked to, however often.
var ErrRefused = errors.New("refused")

// Item is one thing to fetch. SHA256 is "sha256:…" and may not be empty. Size is
// in bytes; 0 means unknown, and the Options' cap holds.
type Item struct {
	URL    string
	Size   int64
	SHA256 string
}

// Options are a client's limits. Zero values stand for the defaults in brackets.
type Options struct {
	Parallel int                     // downloads at a time [4]
	Retries  int                     // further tries after the first [4]; below 0 for none
	Stall    time.Duration           // longest wait for the next byte, or for an answer [30 s]
	Backoff  time.Duration           // wait before the first retry, doubling up to 30 s [500 ms]
	MaxSize  int64                   // cap for items of unknown size [4 GiB]
	Offline  bool                    // nothing is asked for; what the store lacks is ErrOffline
	Client   *http.Client            // [one that keeps no state between hosts]
	Retried  bool                    // the Client tries again by itself: only a body that breaks off is asked for anew
	Answers  bool                    // of Retrying: what gets no answer is not asked for again
	Progress func(done, total int64) // hears bytes of an All, or of the Parts so far; total counts known sizes
}

// Client downloads into a store. It is safe for concurrent use.
type Client struct {
	store *store.Store
	opt   Options
	http  *retryablehttp.Client
	parts progress
}

// progress is how many bytes are there, of how many that were asked for.
type progress struct{ done, total atomic.Int64 }

func (c *Client) count(p *progress, n int64) {
	if d := p.done.Add(n); c.opt.Progress != nil {
		c.opt.Progress(d, p.total.Load())
	}
}

// longest is how long a server may have a client wait (Retry-After).
const longest = 5 * time.Minute

func (o *Options) complete() {
	o.Parallel = cmp.Or(o.Parallel, 4)
	o.Retries = max(cmp.Or(o.Retries, 4), 0)
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.Backoff = cmp.Or(o.Backoff, 500*time.Millisecond)
	o.MaxSize = cmp.Or(o.MaxSize, 4<<30)
}

// retrying is a client that asks again where that may help, with Retry-After.
func (o *Options) retrying() *retryablehttp.Client {
	o.complete()
	h := retryablehttp.NewClient()
	h.Logger = nil
	h.RetryMax = o.Retries
	h.RetryWaitMin, h.RetryWaitMax = o.Backoff, 30*time.Second
	h.Backoff = func(least, most time.Duration, try int, resp *http.Response) time.Duration {
		return min(retryablehttp.DefaultBackoff(least, most, try, resp), longest)
	}
	answers := o.Answers
	h.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if err != nil && (answers || errors.Is(err, ErrRefused)) {
			return false, err
		}
		return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
	}
	h.ErrorHandler = retryablehttp.PassthroughErrorHandler // the last answer is judged here, not in the library's words
	return h
}

// Retrying is next, and asks again as a Client does; of the options Retries, Backoff
// and Answers count. Bodies of requests are kept in memory for it.
func Retrying(next http.RoundTripper, o Options) http.RoundTripper {
	h := o.retrying()
	h.HTTPClient = &http.Client{Transport: next, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &retrying{retryablehttp.RoundTripper{Client: h}}
}

type retrying struct{ again retryablehttp.RoundTripper }

// RoundTrip implements http.RoundTripper: an answer or an error. The library gives both where
// the request was given up while the answer came.
func (r *retrying) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.again.RoundTrip(req)
	if err != nil && resp != nil {
		_ = resp.Body.Close()
		resp = nil
	}
	return resp, err
}

// New returns a client that files what it fetches in s.
func New(s *store.Store, o Options) *Client {
	h := o.retrying()
	if t, ok := h.HTTPClient.Transport.(*http.Transport); ok { // the library makes one for each client
		t.ResponseHeaderTimeout = o.Stall
		t.RegisterProtocol("file", http.NewFileTransport(http.Dir("/"))) // #nosec G111 -- the address is the operator's; servers cannot name one
		h.HTTPClient.CheckRedirect = onTheWeb
		t.DialContext = (&net.Dialer{Timeout: o.Stall, KeepAlive: 30 * time.Second}).DialContext
	}
	if o.Client != nil {
		h.HTTPClient = o.Client
	}
	if o.Retried {
		h.RetryMax = 0
	}
	return &Client{store: s, opt: o, http: h}
}

// onTheWeb lets no server send a client to the host's own files.
func onTheWeb(req *http.Request, via []*http.Request) error {
	if s := req.URL.Scheme; s != "http" && s != "https" {
		return fmt.Errorf("%w: a redirect to a %s: address", ErrRefused, s)
	}
	if len(via) >= 10 {
		return fmt.Errorf("%w: the tenth redirect in a row", ErrRefused)
	}
	return nil
}

// Get returns the path of the item's blob in the store, downloading it if the
// store lacks it. Two Gets of one item, in any process, download it once.
func (c *Client) Get(ctx context.Context, it Item) (string, error) {
	return c.get(ctx, it, func(int64) {})
}

// Part is Get for one of many that are not known beforehand: the progress is that of all of them.
func (c *Client) Part(ctx context.Context, it Item) (string, error) {
	c.parts.total.Add(it.Size)
	path, err := c.get(ctx, it, func(n int64) { c.count(&c.parts, n) })
	if err != nil {
		c.parts.total.Add(-it.Size)
	}
	return path, err
}

// All gets every item, several at a time, and returns their paths in the same
// order. The first failure stops the rest.
func (c *Client) All(ctx context.Context, items []Item) ([]string, error) {
	var all progress
	for _, it := range items {
		all.total.Add(it.Size)
	}
	paths := make([]string, len(items))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.opt.Parallel)
	for i, it := range items {
		group.Go(func() (err error) {
			paths[i], err = c.get(ctx, it, func(n int64) { c.count(&all, n) })
			return err
		})
	}
	return paths, group.Wait()
}

// Small returns the body at addr, which may be at most limit bytes: for digest
// lists, signatures and other things that no digest vouches for.
func (c *Client) Small(ctx context.Context, addr string, limit int64) ([]byte, error) {
	var body []byte
	err := c.tries(ctx, addr, func(r io.Reader, _ int64) error {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r, limit+1)); err == nil && int64(len(body)) > limit {
			return fmt.Errorf("longer than %d bytes: %w", limit, ErrMismatch)
		}
		return err
	})
	return body, err
}

func (c *Client) get(ctx context.Context, it Item, count func(int64)) (string, error) {
	if path, err := c.store.Get(it.SHA256); err == nil {
		count(it.Size)
		return path, nil
	} else if !strings.HasPrefix(it.SHA256, "sha256:") {
		return "", fmt.Errorf("fetching %s: %w", tidy(it.URL), err)
	}
	return c.store.Once(ctx, "fetch "+it.SHA256, func(ctx context.Context) (string, error) {
		err := c.tries(ctx, it.URL, func(r io.Reader, length int64) error { return c.file(ctx, it, r, length, count) })
		return it.SHA256, err
	})
}

// file reads one answer into the store, if it is what the item says.
func (c *Client) file(ctx context.Context, it Item, r io.Reader, length int64, count func(int64)) error {
	limit := cmp.Or(it.Size, c.opt.MaxSize)
	if length > limit || (it.Size > 0 && length >= 0 && length != it.Size) {
		return fmt.Errorf("server offers %d bytes, want %s: %w", length, sizeText(it.Size, limit), ErrMismatch)
	}
	var n int64
	counted := readerFunc(func(p []byte) (int, error) {
		m, err := r.Read(p)
		if n += int64(m); n > limit {
			return 0, fmt.Errorf("server sends more than %s: %w", sizeText(it.Size, limit), ErrMismatch)
		}
		count(int64(m))
		return m, err
	})
	_, err := c.store.PutAs(ctx, counted, it.SHA256)
	var wrong *store.MismatchError
	if errors.As(err, &wrong) {
		err = fmt.Errorf("%w: %w", ErrMismatch, wrong)
	}
	if err != nil {
		count(-n) // it does not count towards the progress
	}
	return err
}

// tries asks for addr and hands the body to use. Refused connections, 429 and 5xx
// are retried below this, by the library and with Retry-After; a body that breaks
// off or stalls is asked for again here. Wrong bytes are final.
func (c *Client) tries(ctx context.Context, addr string, use func(r io.Reader, length int64) error) error {
	wait := c.opt.Backoff
	for try := 0; ; try++ {
		err := c.once(ctx, addr, use)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("fetching %s: %w", tidy(addr), err)
		var broken *brokenError
		if ctx.Err() != nil || !errors.As(err, &broken) || try >= c.opt.Retries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
		wait = min(2*wait, 30*time.Second)
	}
}

func (c *Client) once(ctx context.Context, addr string, use func(r io.Reader, length int64) error) error {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file" || (u.Host == "") != (u.Scheme == "file") {
		return errors.New("want an http://, https:// or file:/// address")
	}
	if c.opt.Offline {
		return ErrOffline
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return errors.New("the address cannot be used")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return bare(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return fmt.Errorf("%w (%s)", ErrNotFound, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("server answers %s", resp.Status)
	}
	body := &stallReader{r: resp.Body, limit: c.opt.Stall, cancel: cancel, ctx: ctx}
	return use(body, resp.ContentLength)
}
