package output

import (
	"archive/tar"
	"bytes"
	"context"
	"io"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// add adds a file to a tar.
func add(ctx context.Context, w *tar.Writer, name string, size int64, content io.Reader) error {
	h := header(name, size)
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.Copy(w, reader{ctx, content})
	return err
}

// header is that of a file in a tar: a ustar one up to 8 GiB, as everything reads.
func header(name string, size int64) tar.Header {
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: repro.Epoch(), Format: tar.FormatUSTAR}
	if size >= 8<<30 {
		h.Format = tar.FormatGNU
	}
	return h
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// part is a part of a file that lies in memory.
func part(b []byte) sparse.Part { return sparse.Part{Src: bytes.NewReader(b), Size: int64(len(b))} }

// ending fills a tar's file up to a whole block, and ends the tar.
func ending(size int64) []byte { return make([]byte, -size&511+2*512) }
