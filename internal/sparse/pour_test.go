package sparse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// slow is content that comes when it is let.
type slow struct {
	text []byte
	gate chan struct{} // nil: at once
	err  error         // comes instead
}

func (s slow) Size() int64 { return int64(len(s.text)) }

func (s slow) Open() (io.ReadCloser, error) {
	if s.gate != nil {
		<-s.gate
	}
	if s.err != nil {
		return io.NopCloser(iotest.ErrReader(s.err)), nil
	}
	return io.NopCloser(bytes.NewReader(s.text)), nil
}

// plain is a file of 20 MiB that has but its first and last bytes, and what is to come into it.
func plain(t *testing.T) (f *os.File, first, second slow, want []byte) {
	t.Helper()
	const mib = 1 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	first = slow{text: bytes.Repeat([]byte("first"), mib), gate: make(chan struct{})}
	second = slow{text: bytes.Repeat([]byte("second"), 700_001), gate: make(chan struct{})}
	want = make([]byte, 20*mib)
	copy(want, "begin")
	copy(want[len(want)-3:], "end")
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(5), f.Truncate(int64(len(want)))); err != nil { // a hole
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), int64(len(want)-3)); err != nil {
		t.Fatal(err)
	}
	copy(want[mib:], first.text)
	copy(want[8*mib:], second.text)
	return f, first, second, want
}

// TestPour reads a file while it is being written: what is there at once, what has to be
// waited for, and its digest.
func TestPour(t *testing.T) {
	f, first, second, want := plain(t)
	p := Pour(t.Context(), f, []Later{{8 << 20, second}, {1 << 20, first}}) // in any order
	defer p.Close()
	b := make([]byte, 64<<10)
	for _, at := range []int64{0, 19 << 20, 14 << 20} { // before, at the end of and right behind all that is to come
		if n, err := p.ReadAt(b, at); err != nil || !bytes.Equal(b[:n], want[at:at+int64(n)]) {
			t.Errorf("at %d: %v", at, err)
		}
	}
	sums := make(chan [sha256.Size]byte, 1)
	go func() {
		sum, size, err := p.SHA256()
		if err != nil || size != int64(len(want)) {
			t.Errorf("the digest is of %d bytes, %v", size, err)
		}
		sums <- [sha256.Size]byte(sum)
	}()
	for _, part := range []struct {
		slow
		at int64
	}{{first, 1 << 20}, {second, 8 << 20}} {
		read := make(chan error, 1)
		go func() {
			got := make([]byte, 3<<20)
			_, err := p.ReadAt(got, part.at+1<<20)
			if err == nil && !bytes.Equal(got, want[part.at+1<<20:][:len(got)]) {
				err = errors.New("other bytes")
			}
			read <- err
		}()
		select {
		case err := <-read:
			t.Errorf("what is not there yet is read: %v", err)
		case <-sums:
			t.Error("there is a digest before all is there")
		default:
		}
		close(part.gate)
		if err := <-read; err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(p.Wait(), p.Sync()); err != nil {
		t.Error(err)
	}
	if got := <-sums; got != sha256.Sum256(want) {
		t.Errorf("the digest is %x", got)
	}
}

// TestPourFails has a content that cannot be read, and one that is too short: whoever waits hears of it.
func TestPourFails(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		content Content
		want    error
	}{
		"cannot be read": {slow{text: make([]byte, 100), err: broken}, broken},
		"too short":      {short{slow{text: make([]byte, 5<<20)}}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			f, first, _, _ := plain(t)
			close(first.gate)
			p := Pour(t.Context(), f, []Later{{1 << 20, first}, {8 << 20, c.content}})
			_, _, err := p.SHA256()
			_, again := p.ReadAt(make([]byte, 10), 13<<20)
			for _, err := range []error{err, again, p.Wait(), p.Sync()} {
				if !errors.Is(err, c.want) {
					t.Errorf("error %v", err)
				}
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// short promises more than it has.
type short struct{ slow }

func (s short) Size() int64 { return s.slow.Size() + 1 }

// TestPourEnds stops in the middle.
func TestPourEnds(t *testing.T) {
	f, first, second, _ := plain(t)
	ctx, cancel := context.WithCancel(t.Context())
	p := Pour(ctx, f, []Later{{1 << 20, first}, {8 << 20, second}})
	cancel()
	close(first.gate)
	if err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
