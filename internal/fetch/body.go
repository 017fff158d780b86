package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"
)

// brokenError is a failure of the line, worth another try.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// stallReader fails when no byte comes for limit, and marks read errors as broken.
type stallReader struct {
	ctx    context.Context
	r      io.Reader
	limit  time.Duration
	cancel context.CancelCauseFunc
}

func (s *stallReader) Read(p []byte) (int, error) {
	stalled := fmt.Errorf("nothing came for %v", s.limit)
	t := time.AfterFunc(s.limit, func() { s.cancel(stalled) })
	n, err := s.r.Read(p)
	t.Stop()
	if err == nil || err == io.EOF { //nolint:errorlint // io.Reader's contract is the bare io.EOF
		return n, err
	}
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	return n, &brokenError{fmt.Errorf("the connection broke off: %w", err)}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// tidy is an address as it may be shown: no password and no query, which may
// carry a signature.
func tidy(addr string) string {
	u, err := url.Parse(addr)
	if err != nil {
		return "an unreadable address"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// bare takes the address, which may carry a secret, out of an HTTP client's error.
func bare(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

func sizeText(size, limit int64) string {
	if size > 0 {
		return fmt.Sprintf("%d bytes", size)
	}
	return fmt.Sprintf("the limit of %d bytes", limit)
}
