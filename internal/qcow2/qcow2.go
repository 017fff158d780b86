// Package qcow2 writes disk images in QEMU's format, the same bytes for the same
// disk on every run and any number of processors. It follows QEMU's
// docs/interop/qcow2.txt, version 3, with clusters of 64 KiB and 16-bit
// reference counts; no backing file, no snapshots, no encryption. It reads
// no qcow2.
package qcow2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/errgroup"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	// maxSize keeps the first-level table within QEMU's limit of 32 MiB.
	maxSize = 1 << 50
	// window is that of QEMU's own compressor; its decompressor asks zlib for no more.
	window = 4096
)

// Options choose the form of the image.
type Options struct {
	Compress bool // store clusters deflated where that makes them smaller
}

// Write replaces what is in dst with a qcow2 image of the first size bytes of
// src, a multiple of 512. Clusters that are zero are left out; where src is a
// file its holes are not even read (its offset moves). Memory: a few clusters
// for each processor, and 64 KiB for each 512 MiB that hold data. The caller
// closes dst; after an error its content is worthless.
func Write(ctx context.Context, dst *os.File, src io.ReaderAt, size int64, opt Options) error {
	if size <= 0 || size > maxSize || size%512 != 0 {
		return fmt.Errorf("writing qcow2: disk of %d bytes, must be 1 to %d and whole sectors of 512", size, int64(maxSize))
	}
	img, err := newImage(dst, size)
	if err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	if err := copyClusters(ctx, img, src, size, opt.Compress); err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	if err := img.finish(); err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	return nil
}

// job is one guest cluster that holds data, on its way through the pipeline.
type job struct {
	index  int64 // of the guest cluster
	plain  []byte
	packed bytes.Buffer // empty: store plain
	done   chan struct{}
}

// copyClusters runs reader → workers → writer. The writer takes the jobs in the
// reader's order, which makes the image independent of who compresses what.
func copyClusters(ctx context.Context, img *image, src io.ReaderAt, size int64, compress bool) error {
	workers := runtime.GOMAXPROCS(0)
	depth := 4 * workers
	free, queue, order := make(chan *job, depth), make(chan *job, depth), make(chan *job, depth)
	for range depth {
		free <- &job{plain: make([]byte, clusterSize), done: make(chan struct{}, 1)}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		defer close(order)
		return read(ctx, src, size, free, func(j *job) {
			queue <- j // never blocks: there are no more jobs than places
			order <- j
		})
	})
	for range workers {
		g.Go(func() error { return pack(queue, compress) })
	}
	g.Go(func() error {
		for j := range order {
			select {
			case <-j.done:
			case <-ctx.Done(): // a worker may have failed on it
				return ctx.Err()
			}
			if err := img.put(j); err != nil {
				return err
			}
			free <- j
		}
		return nil
	})
	return g.Wait()
}

// pack compresses jobs until there are no more.
func pack(queue <-chan *job, compress bool) error {
	deflate, err := flate.NewWriterWindow(io.Discard, window)
	if err != nil {
		return err
	}
	for j := range queue {
		j.packed.Reset()
		if compress {
			deflate.Reset(&j.packed)
			_, werr := deflate.Write(j.plain)
			if err := errors.Join(werr, deflate.Close()); err != nil {
				return err
			}
			if j.packed.Len() >= clusterSize {
				j.packed.Reset()
			}
		}
		j.done <- struct{}{}
	}
	return nil
}

// read sends every cluster of src that is not all zero, in order.
func read(ctx context.Context, src io.ReaderAt, size int64, free <-chan *job, send func(*job)) error {
	zero := make([]byte, clusterSize)
	var j *job
	for at := int64(0); at < size; {
		start, end := data(src, at, size)
		at = start &^ (clusterSize - 1)
		for ; at < end; at += clusterSize {
			if j == nil {
				select {
				case j = <-free:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			n := min(clusterSize, size-at)
			if got, err := src.ReadAt(j.plain[:n], at); int64(got) < n {
				return fmt.Errorf("reading the disk at %d: %w", at, err)
			}
			clear(j.plain[n:])
			if !bytes.Equal(j.plain, zero) {
				j.index = at >> clusterBits
				send(j)
				j = nil
			}
		}
	}
	return ctx.Err()
}

// seeker is what knows its holes, such as a file.
type seeker interface {
	Seek(offset int64, whence int) (int64, error)
}

const (
	seekData = 3 // Linux lseek(2)
	seekHole = 4
)

// data returns the next stretch at or after at that may hold data; the end of
// the disk, twice, where there is none.
func data(src io.ReaderAt, at, size int64) (start, end int64) {
	f, ok := src.(*os.File)
	if !ok {
		return at, size
	}
	return stretch(f, at, size)
}

func stretch(f seeker, at, size int64) (start, end int64) {
	start, err := f.Seek(at, seekData)
	if noMoreData(err) {
		return size, size
	}
	if err != nil || start < at {
		return at, size // the file system cannot tell
	}
	end, err = f.Seek(start, seekHole)
	if err != nil || end <= start {
		return start, size
	}
	return min(start, size), min(end, size)
}
