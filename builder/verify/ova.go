package verify

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// stored is a file of a tar, where it lies.
type stored struct {
	name string
	*io.SectionReader
}

// maxEntries and maxText bound a tar and the documents in it.
const maxEntries, maxText = 100, 1 << 20

// contents lists the regular files of a tar that is no larger than a package needs.
func contents(f io.ReaderAt, size int64) (out []stored, err error) {
	whole := io.NewSectionReader(f, 0, size)
	for r := tar.NewReader(whole); len(out) < maxEntries; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		at, err := whole.Seek(0, io.SeekCurrent) // the reader is never ahead
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%s: want regular files and nothing else", h.Name)
		}
		out = append(out, stored{h.Name, io.NewSectionReader(f, at, h.Size)})
	}
	return nil, fmt.Errorf("more than %d files", maxEntries-1)
}

// text is what a document says.
func (s stored) text() ([]byte, error) {
	if s.Size() > maxText {
		return nil, fmt.Errorf("%s has %d bytes, want %d at most", s.name, s.Size(), maxText)
	}
	b := make([]byte, s.Size())
	return b, readAt(s, b, 0)
}

// sum is the SHA-256 digest in hex.
func (s stored) sum(ctx context.Context) (string, error) {
	h, buf := sha256.New(), make([]byte, 1<<20)
	for r := io.NewSectionReader(s, 0, s.Size()); ; {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return "", err
		}
	}
}

// firstIn says whether the file is a tar whose first file is called so.
func firstIn(is func(name string) bool) func(io.ReaderAt, int64) bool {
	return func(f io.ReaderAt, size int64) bool {
		if !isTar(f) {
			return false
		}
		h, err := tar.NewReader(io.NewSectionReader(f, 0, size)).Next()
		return err == nil && is(h.Name)
	}
}

func isDescriptor(name string) bool { return strings.HasSuffix(name, ".ovf") }

// digestLine is one of an OVF package's manifest.
var digestLine = regexp.MustCompile(`(?m)^SHA256\((.+)\)= ([0-9a-f]{64})$`)

// openOVA reads the disk of an OVF package (DSP0243 2.1, section 6.3), whose descriptor and disk
// are what its manifest says.
func openOVA(ctx context.Context, f *os.File, size int64) (*opened, error) {
	files, err := contents(f, size)
	if err != nil {
		return nil, err
	}
	if len(files) != 3 || !isDescriptor(files[0].name) || !strings.HasSuffix(files[1].name, ".mf") {
		return nil, errors.New("want a descriptor, a manifest and one disk, in this order")
	}
	manifest, err := files[1].text()
	if err != nil {
		return nil, err
	}
	said := map[string]string{}
	for _, m := range digestLine.FindAllSubmatch(manifest, -1) {
		said[string(m[1])] = string(m[2])
	}
	for _, s := range []stored{files[0], files[2]} {
		sum, err := s.sum(ctx)
		if err != nil {
			return nil, err
		}
		if sum != said[s.name] {
			return nil, fmt.Errorf("%s has sha256 %s, the manifest says %q", s.name, sum, said[s.name])
		}
	}
	disk, capacity, err := openVMDK(files[2], files[2].Size())
	return &opened{ReaderAt: disk, size: capacity}, err
}
