// Package qcowview reads qcow2 images that stand alone, by a library that did not write
// them; it teaches that library zstd. It writes nothing.
package qcowview

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// maxWindow is as much memory as an image's clusters may ask for, bytes: the largest
// cluster that the format knows, four times.
const maxWindow = 8 << 20

// Open gives the disk in an image, and its size. One with a backing file is refused, so
// that nothing but the file itself is read.
func Open(f io.ReaderAt) (disk io.ReaderAt, size int64, err error) {
	header := make([]byte, 16)
	if _, err := f.ReadAt(header, 0); err != nil {
		return nil, 0, err
	}
	if binary.BigEndian.Uint64(header[8:]) != 0 {
		return nil, 0, errors.New("the image has a backing file: give one that stands alone")
	}
	teach()
	img, err := qcow2reader.OpenWithType(f, qcow2.Type)
	if err != nil {
		return nil, 0, err
	}
	return img, img.Size(), img.Readable()
}

// teach has the library know zstd: compression type 1 of docs/interop/qcow2.txt.
var teach = sync.OnceFunc(func() { qcow2.SetDecompressor(qcow2.CompressionTypeZstd, unpack) })

// stream is what unpacks one cluster. It is used again: a new one takes longer than a cluster.
type stream struct {
	z  *zstd.Decoder
	in *bufio.Reader // a decoder reads a few bytes at a time, each a system call
}

var idle sync.Pool

func unpack(r io.Reader) (io.ReadCloser, error) {
	s, _ := idle.Get().(*stream)
	if s == nil {
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		s = &stream{z: z, in: bufio.NewReaderSize(nil, 32<<10)}
	}
	s.in.Reset(r)
	return s, s.z.Reset(s.in)
}

// Read implements io.Reader. What fills the cluster's last sector behind the frame is no
// error: there is something before it.
func (s *stream) Read(p []byte) (n int, err error) {
	n, err = s.z.Read(p)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.in.Reset(nil)
	idle.Put(s)
	return nil
}
