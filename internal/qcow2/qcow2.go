// Package qcow2 writes disk images in QEMU's format, the same bytes for the same
// disk on every run and any number of processors. It follows QEMU's
// docs/interop/qcow2.txt, version 3, with clusters of 64 KiB and 16-bit
// reference counts; no backing file, no snapshots, no encryption. It reads
// no qcow2.
package qcow2

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	// maxSize keeps the first-level table within QEMU's limit of 32 MiB.
	maxSize = 1 << 50
)

// Options choose the form of the image.
type Options struct {
	Compress bool // store clusters as zstd, which QEMU reads since 5.1, where that makes them smaller
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
	img, err := newImage(dst, size, opt)
	if err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	pack := packer
	if !opt.Compress {
		pack = nil
	}
	if err := sparse.Blocks(ctx, src, size, clusterSize, pack, img.put); err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	if err := img.finish(); err != nil {
		return fmt.Errorf("writing qcow2: %w", err)
	}
	return nil
}

// packer makes what packs a cluster, if that makes it smaller: one frame that names its size.
func packer() (func(*sparse.Block) error, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBestCompression),
		zstd.WithWindowSize(clusterSize), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	var frame []byte
	return func(b *sparse.Block) error {
		if frame = z.EncodeAll(b.Plain, frame[:0]); len(frame) < clusterSize {
			b.Packed.Write(frame)
		}
		return nil
	}, err
}
