package sparse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Block is a stretch of a disk that is not all zero, on its way through Blocks.
type Block struct {
	At     int64        // where it begins, a multiple of its size
	Plain  []byte       // behind the end of the disk: zeros
	Packed bytes.Buffer // for what pack makes of it
	done   chan struct{}
}

// budget is how many bytes of plain blocks are on their way at once, at most; with
// what they are packed into it is twice that.
const budget = 32 << 20

// Blocks cuts the first size bytes of src into blocks of that many bytes, the last one
// filled up with zeros, and gives put those that are not all zero, in their order. Each
// was packed before: pack runs on many blocks at once, on one by one worker, and newPack
// makes one for each worker; with nil nothing is packed. What put sees is thus the same on any
// number of processors. Holes of src are not read where it knows them (a file does, whose
// offset moves, and Joined).
func Blocks(ctx context.Context, src io.ReaderAt, size int64, block int, newPack func() (pack func(*Block) error, err error), put func(*Block) error) error {
	depth := max(2, min(4*runtime.GOMAXPROCS(0), budget/block))
	free, queue, order := make(chan *Block, depth), make(chan *Block, depth), make(chan *Block, depth)
	for range depth {
		free <- &Block{Plain: make([]byte, block), done: make(chan struct{}, 1)}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		defer close(order)
		return read(ctx, src, size, free, func(b *Block) {
			queue <- b // never blocks: there are no more blocks than places
			order <- b
		})
	})
	for range min(runtime.GOMAXPROCS(0), depth/2) {
		g.Go(func() error { return work(queue, newPack) })
	}
	g.Go(func() error {
		for b := range order {
			select {
			case <-b.done:
			case <-ctx.Done(): // a worker may have failed on it
				return ctx.Err()
			}
			if err := put(b); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// work packs blocks until there are no more.
func work(queue <-chan *Block, newPack func() (func(*Block) error, error)) error {
	pack := func(*Block) error { return nil }
	if newPack != nil {
		var err error
		if pack, err = newPack(); err != nil {
			return err
		}
	}
	for b := range queue {
		b.Packed.Reset()
		if err := pack(b); err != nil {
			return err
		}
		b.done <- struct{}{}
	}
	return nil
}

// read sends every block of src that is not all zero, in order.
func read(ctx context.Context, src io.ReaderAt, size int64, free <-chan *Block, send func(*Block)) error {
	var b *Block
	var zero []byte
	for at := int64(0); at < size; {
		start, end, err := dataOf(src, at, size)
		if err != nil {
			return fmt.Errorf("looking for holes: %w", err)
		}
		for at = max(at, start); at < end; {
			if b == nil {
				select {
				case b = <-free:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			block := int64(len(b.Plain))
			at -= at % block
			n := min(block, size-at)
			if got, err := src.ReadAt(b.Plain[:n], at); int64(got) < n {
				return fmt.Errorf("reading the disk at %d: %w", at, err)
			}
			clear(b.Plain[n:])
			if zero == nil {
				zero = make([]byte, block)
			}
			if !bytes.Equal(b.Plain, zero) {
				b.At = at
				send(b)
				b = nil
			}
			at += block
		}
	}
	return ctx.Err()
}

// holey is what knows where it holds data, as next says it of a file.
type holey interface {
	data(at, size int64) (data, end int64, err error)
}

// dataOf is where data may begin at or behind at, and where it ends.
func dataOf(src io.ReaderAt, at, size int64) (data, end int64, err error) {
	switch src := src.(type) {
	case *os.File:
		return next(src, at, size)
	case holey:
		return src.data(at, size)
	}
	return at, size, nil
}
