package sparse

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
)

// Content is what can be opened again and again, and knows its size in bytes.
type Content interface {
	Open() (io.ReadCloser, error)
	Size() int64
}

// Later is content that is to be written from At on.
type Later struct {
	At      int64
	Content Content
}

// Poured is a file into which contents are being written while it is read: who reads
// waits for those that he comes to. What is no part of them is there from the beginning.
type Poured struct {
	f    *os.File
	stop context.CancelFunc
	last int64 // from there on everything is there

	more  *sync.Cond
	there int64 // everything before it is there
	err   error
	ended bool
}

var _ io.ReaderAt = (*Poured)(nil)

// Pour begins to write the contents into f, which belongs to what is returned.
func Pour(ctx context.Context, f *os.File, contents []Later) *Poured {
	ctx, stop := context.WithCancel(ctx)
	p := &Poured{f: f, stop: stop, more: sync.NewCond(new(sync.Mutex)), there: math.MaxInt64}
	contents = slices.SortedFunc(slices.Values(contents), func(a, b Later) int { return cmp.Compare(a.At, b.At) })
	if len(contents) > 0 {
		end := contents[len(contents)-1]
		p.there, p.last = contents[0].At, end.At+end.Content.Size()
	}
	go func() { p.tell(math.MaxInt64, p.pour(ctx, contents), true) }()
	return p
}

// tell wakes who waits for what is there now.
func (p *Poured) tell(there int64, err error, ended bool) {
	p.more.L.Lock()
	defer p.more.L.Unlock()
	if p.err, p.ended = err, ended; err == nil {
		p.there = there
	}
	p.more.Broadcast()
}

func (p *Poured) pour(ctx context.Context, contents []Later) error {
	buf := make([]byte, stride)
	for _, l := range contents {
		r, err := l.Content.Open()
		if err != nil {
			return err
		}
		if err := errors.Join(p.one(ctx, r, l, buf), r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// stride is written at a time, in bytes: what stays in the processor's cache meanwhile.
const stride = 1 << 20

func (p *Poured) one(ctx context.Context, r io.Reader, l Later, buf []byte) error {
	p.tell(l.At, nil, false)
	for done := int64(0); done < l.Content.Size(); {
		b := buf[:min(stride, l.Content.Size()-done)]
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("reading %v: %w", l.Content, err)
		}
		if _, err := p.f.WriteAt(b, l.At+done); err != nil {
			return err
		}
		done += int64(len(b))
		p.tell(l.At+done, nil, false)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// await waits until all bytes from at to end are there.
func (p *Poured) await(at, end int64) error {
	p.more.L.Lock()
	defer p.more.L.Unlock()
	for at < p.last && p.there < min(end, p.last) && !p.ended {
		p.more.Wait()
	}
	return p.err
}

// Wait waits until everything is there.
func (p *Poured) Wait() error { return p.await(0, math.MaxInt64) }

// ReadAt implements io.ReaderAt.
func (p *Poured) ReadAt(b []byte, off int64) (int, error) {
	if err := p.await(off, off+int64(len(b))); err != nil {
		return 0, err
	}
	return p.f.ReadAt(b, off)
}

// Size is the file's, in bytes.
func (p *Poured) Size() (int64, error) {
	info, err := p.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// SHA256 is the digest of all of it, made as it comes. See the function of that name.
func (p *Poured) SHA256() (sum []byte, size int64, err error) {
	if size, err = p.Size(); err != nil {
		return nil, 0, err
	}
	h := sha256.New()
	for at := int64(0); at < size; at += block {
		end := min(at+block, size)
		if err := errors.Join(p.await(at, end), add(h, p.f, at, end)); err != nil {
			return nil, 0, err
		}
	}
	return h.Sum(nil), size, nil
}

// Sync waits until everything is on the disk.
func (p *Poured) Sync() error {
	if err := p.Wait(); err != nil {
		return err
	}
	return p.f.Sync()
}

// Close ends the writing where it is, and closes the file.
func (p *Poured) Close() error {
	p.stop()
	_ = p.Wait() // what it says was said to who waited
	return p.f.Close()
}
