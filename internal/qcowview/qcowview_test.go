package qcowview

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

const size = 20<<20 + 1024

// made is an image of a disk as qemu-img makes it.
func made(t *testing.T, args ...string) (image string, disk []byte) {
	t.Helper()
	src := disktest.Disk(t, size)
	image = filepath.Join(t.TempDir(), "image")
	disktest.Tool(t, "qemu-img", append(append([]string{"convert", "-O", "qcow2"}, args...), src.Name(), image)...)
	disk, err := os.ReadFile(src.Name())
	if err != nil {
		t.Fatal(err)
	}
	return image, disk
}

// TestQemuImg reads what another writer made, in pieces that no cluster knows of, and from
// several sides at once.
func TestQemuImg(t *testing.T) {
	for name, args := range map[string][]string{
		"plain": nil, "deflate": {"-c"}, "zstd": {"-c", "-o", "compression_type=zstd"},
		"zstd, small clusters": {"-c", "-o", "compression_type=zstd,cluster_size=4k"}, "zstd, large clusters": {"-c", "-o", "compression_type=zstd,cluster_size=256k"},
	} {
		t.Run(name, func(t *testing.T) {
			image, want := made(t, args...)
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			disk, n, err := Open(f)
			if err != nil || n != size {
				t.Fatalf("%d bytes, want %d, %v", n, size, err)
			}
			var all sync.WaitGroup
			for _, piece := range []int64{20_000, 65536, 300_000} {
				all.Go(func() {
					got, err := io.ReadAll(io.NewSectionReader(small{disk, piece}, 0, n))
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("in pieces of %d: %d bytes, %v, equal %v", piece, len(got), err, bytes.Equal(got, want))
					}
				})
			}
			all.Wait()
		})
	}
}

// small reads so many bytes at a time, at most.
type small struct {
	io.ReaderAt
	most int64
}

func (s small) ReadAt(p []byte, at int64) (int, error) {
	n := min(int64(len(p)), s.most)
	got, err := s.ReaderAt.ReadAt(p[:n], at)
	if err == nil && got == len(p) {
		return got, nil
	}
	return got, err
}

func TestRefused(t *testing.T) {
	image, _ := made(t, "-c", "-o", "compression_type=zstd")
	good, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   string
	}{
		"backing file":    {func(b []byte) []byte { be.PutUint64(b[8:], 300); return b }, "backing file"},
		"another packing": {func(b []byte) []byte { b[104] = 2; return b }, "compression"},
		"encrypted":       {func(b []byte) []byte { be.PutUint32(b[32:], 2); return b }, "encrypt"},
		"raw":             {func([]byte) []byte { return make([]byte, 1<<20) }, "wrong"},
		"empty":           {func([]byte) []byte { return nil }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Open(bytes.NewReader(c.change(bytes.Clone(good)))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	torn := bytes.Clone(good)
	for i := 5 << 16; i < len(torn); i++ { // the clusters' frames
		torn[i] ^= 0x55
	}
	disk, n, err := Open(bytes.NewReader(torn))
	if err == nil {
		_, err = io.Copy(io.Discard, io.NewSectionReader(disk, 0, n))
	}
	if err == nil {
		t.Error("clusters that are no zstd are read")
	}
}
