package sparse

import (
	"context"
	"errors"
	"io"
	"os"
)

// Part is Size bytes of Src from At on. Without Src it is a hole.
type Part struct {
	Src      io.ReaderAt
	At, Size int64
}

// Joined is parts, one behind the other, as one thing to read.
type Joined []Part

var _ io.ReaderAt = Joined{}

// Size is that of all parts, in bytes.
func (j Joined) Size() (size int64) {
	for _, p := range j {
		size += p.Size
	}
	return size
}

// ReadAt implements io.ReaderAt.
func (j Joined) ReadAt(b []byte, off int64) (n int, err error) {
	for _, p := range j {
		if n == len(b) {
			return n, nil
		}
		if off >= p.Size {
			off -= p.Size
			continue
		}
		want := b[n:min(int64(len(b)), int64(n)+p.Size-off)]
		if p.Src == nil {
			clear(want)
		} else if got, err := p.Src.ReadAt(want, p.At+off); got < len(want) {
			return n + got, err
		}
		n, off = n+len(want), 0
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// data implements holey.
func (j Joined) data(at, size int64) (start, end int64, err error) {
	begin := int64(0)
	for _, p := range j {
		stop := min(begin+p.Size, size)
		if p.Src != nil && at < stop {
			from := max(at-begin, 0)
			start, end, err := dataOf(p.Src, p.At+from, p.At+p.Size)
			if err != nil {
				return 0, 0, err
			}
			if start < end {
				return min(begin+start-p.At, size), min(begin+end-p.At, size), nil
			}
		}
		begin += p.Size
	}
	return size, size, nil
}

// copied is how much is copied between two looks at the context, in bytes.
const copied = 16 << 20

// Copy makes the first size bytes of dst, an empty file, those of src, with src's holes.
// Both files' offsets move. The kernel copies, or lets the two share what it can.
func Copy(ctx context.Context, dst, src *os.File, size int64) error {
	if err := CopyTo(ctx, dst, 0, src, size); err != nil {
		return err
	}
	return dst.Truncate(size)
}

// CopyTo puts the first size bytes of src at a place in dst, as Copy does; where src has holes,
// dst is left alone, and must have zeros.
func CopyTo(ctx context.Context, dst *os.File, to int64, src *os.File, size int64) error {
	for at := int64(0); at < size; {
		start, end, err := next(src, at, size)
		if err != nil {
			return err
		}
		for at = start; at < end; at += min(copied, end-at) {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err1 := src.Seek(at, io.SeekStart)
			_, err2 := dst.Seek(to+at, io.SeekStart)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if _, err := io.CopyN(dst, src, min(copied, end-at)); err != nil {
				return err
			}
		}
	}
	return nil
}
