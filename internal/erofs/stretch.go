package erofs

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// stretch is how much of an image is written at a time, in bytes.
const stretch = 4 << 20

// stretches joins the library's many small writes into stretches, and writes them
// by as many processors as there are. The library seeks only once, at the end.
type stretches struct {
	parent context.Context //nolint:containedctx // io.Writer has no other way to pass it
	ctx    context.Context //nolint:containedctx // ends when a write fails
	group  *errgroup.Group
	f      *os.File
	at     int64 // where in the file the image begins
	pos    int64 // where in the image buf begins
	end    int64 // of the image, as far as it was written
	hole   int64 // bytes to come that are not written
	buf    []byte
	free   chan []byte
}

var _ io.WriteSeeker = (*stretches)(nil)

func newStretches(ctx context.Context, f *os.File, at int64) *stretches {
	n := runtime.GOMAXPROCS(0)
	s := &stretches{parent: ctx, f: f, at: at, buf: make([]byte, 0, stretch), free: make(chan []byte, n+1)}
	for range n + 1 {
		s.free <- nil
	}
	s.begin()
	return s
}

func (s *stretches) begin() {
	s.group, s.ctx = errgroup.WithContext(s.parent)
	s.group.SetLimit(runtime.GOMAXPROCS(0))
}

// leave has the next n bytes not written.
func (s *stretches) leave(n int64) {
	if len(s.buf) > 0 {
		s.send()
	}
	s.hole = n
}

// Write implements io.Writer. A write that failed is heard of at a later one.
func (s *stretches) Write(p []byte) (int, error) {
	left := min(s.hole, int64(len(p)))
	s.hole -= left
	s.pass(left)
	for rest := p[left:]; len(rest) > 0; {
		n := copy(s.buf[len(s.buf):cap(s.buf)], rest)
		s.buf, rest = s.buf[:len(s.buf)+n], rest[n:]
		if len(s.buf) == cap(s.buf) {
			if err := s.ctx.Err(); err != nil {
				return 0, context.Cause(s.ctx)
			}
			s.send()
		}
	}
	return len(p), nil
}

// send has the buffer written in the background, and takes another.
func (s *stretches) send() {
	at, data := s.pos, s.buf
	s.group.Go(func() error {
		defer func() { s.free <- data[:0] }()
		_, err := s.f.WriteAt(data, s.at+at)
		return err
	})
	s.pass(int64(len(data)))
	if s.buf = <-s.free; s.buf == nil {
		s.buf = make([]byte, 0, stretch)
	}
}

func (s *stretches) pass(n int64) {
	s.pos += n
	s.end = max(s.end, s.pos)
}

// settle waits until everything is in the file.
func (s *stretches) settle() error {
	if len(s.buf) > 0 {
		s.send()
	}
	err := s.group.Wait()
	s.begin()
	return err
}

// Seek implements io.Seeker, from the start of the image.
func (s *stretches) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fmt.Errorf("seeking from %d: only from the start", whence)
	}
	err := s.settle()
	s.pos = offset
	return offset, err
}
