// Package compress packs a disk as one zstd or gzip file, the same bytes for the same
// disk on any number of processors: every 2 MiB are packed by themselves. Every
// program that knows the format unpacks it. It unpacks nothing.
package compress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/sparse"
)

// block is packed at a time, in bytes.
const block = 2 << 20

// packer appends what it makes of plain bytes.
type packer func(to io.Writer, plain []byte) error

// Zstd writes the first size bytes of src to w: frames (RFC 8878) of 2 MiB, each with the size of its content
// and a checksum. Holes of src are not read. Memory: as sparse.Blocks, and an encoder for each processor.
func Zstd(ctx context.Context, w io.Writer, src io.ReaderAt, size int64) error {
	if err := pack(ctx, w, src, size, newZstd, func([]byte) {}); err != nil {
		return fmt.Errorf("writing zstd: %w", err)
	}
	return nil
}

func newZstd() (packer, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(block),
		zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true))
	var frame []byte
	return func(to io.Writer, plain []byte) error {
		frame = z.EncodeAll(plain, frame[:0])
		_, err := to.Write(frame)
		return err
	}, err
}

// Gzip writes the first size bytes of src to w: one member (RFC 1952) without name and time, whose deflate
// stream begins anew, on a whole byte, after each 2 MiB. Holes of src are not read. Memory: as Zstd.
func Gzip(ctx context.Context, w io.Writer, src io.ReaderAt, size int64) error {
	_, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	sum := uint32(0)
	if err == nil {
		err = pack(ctx, w, src, size, newDeflate, func(plain []byte) { sum = crc32.Update(sum, crc32.IEEETable, plain) })
	}
	if err == nil {
		end := binary.LittleEndian.AppendUint32([]byte{3, 0}, sum)            // an empty block, the last one
		_, err = w.Write(binary.LittleEndian.AppendUint32(end, uint32(size))) // #nosec G115 -- RFC 1952: modulo 2³²
	}
	if err != nil {
		return fmt.Errorf("writing gzip: %w", err)
	}
	return nil
}

func newDeflate() (packer, error) {
	z, err := flate.NewWriter(io.Discard, flate.DefaultCompression)
	return func(to io.Writer, plain []byte) error {
		z.Reset(to)
		_, err := z.Write(plain)
		return errors.Join(err, z.Flush()) // not Close: the stream goes on
	}, err
}

// pack packs block by block, and shows each to plain in their order.
func pack(ctx context.Context, w io.Writer, src io.ReaderAt, size int64, newPacker func() (packer, error), plain func([]byte)) error {
	if size <= 0 {
		return fmt.Errorf("disk of %d bytes", size)
	}
	s := &stream{w: bufio.NewWriterSize(w, 1<<20), zero: make([]byte, block), plain: plain}
	one, err := newPacker()
	if err != nil {
		return err
	}
	newPack := func() (func(*sparse.Block) error, error) {
		pack, err := newPacker()
		return func(b *sparse.Block) error { return pack(&b.Packed, b.Plain[:min(block, size-b.At)]) }, err
	}
	err = sparse.Blocks(ctx, src, size, block, newPack, func(b *sparse.Block) error {
		if err := s.skip(b.At, one); err != nil {
			return err
		}
		s.plain(b.Plain[:min(block, size-b.At)])
		s.at = min(b.At+block, size)
		_, err := s.w.Write(b.Packed.Bytes())
		return err
	})
	if err == nil {
		err = s.skip(size, one)
	}
	return errors.Join(err, s.w.Flush())
}

// stream is the file being written.
type stream struct {
	w     *bufio.Writer
	at    int64 // how far, in the disk
	zero  []byte
	whole []byte // a block of zeros, packed
	plain func([]byte)
}

// skip writes zeros up to a block's begin or the end of the disk.
func (s *stream) skip(to int64, pack packer) error {
	for s.at < to {
		zero := s.zero[:min(block, to-s.at)]
		s.plain(zero)
		s.at += int64(len(zero))
		packed := s.whole
		if packed == nil || len(zero) < block {
			var b bytes.Buffer
			if err := pack(&b, zero); err != nil {
				return err
			}
			packed = b.Bytes()
			if len(zero) == block {
				s.whole = packed
			}
		}
		if _, err := s.w.Write(packed); err != nil {
			return err
		}
	}
	return nil
}
