package qcow2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/qcowview"
)

const mib = 1 << 20

func convert(t testing.TB, src io.ReaderAt, size int64, opt Options) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("what was there before"); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), f, src, size, opt); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

var kinds = map[string]Options{"plain": {}, "compressed": {Compress: true}}

// each runs a test for both kinds and for sizes at the format's edges.
func each(t *testing.T, test func(t *testing.T, src *os.File, size int64, opt Options)) {
	for kind, opt := range kinds {
		for _, size := range []int64{512, clusterSize, clusterSize + 512, 20*mib + 1024, 640 * mib} {
			t.Run(fmt.Sprintf("%s/%d", kind, size), func(t *testing.T) { test(t, disktest.Disk(t, size), size, opt) })
		}
	}
}

func TestQemuImg(t *testing.T) {
	each(t, func(t *testing.T, src *os.File, size int64, opt Options) {
		image := convert(t, src, size, opt)
		if out := disktest.Tool(t, "qemu-img", "check", "-f", "qcow2", image); !strings.Contains(out, "No errors") {
			t.Errorf("check:\n%s", out)
		}
		if out := disktest.Tool(t, "qemu-img", "info", image); strings.Contains(out, "compression type: zstd") != opt.Compress {
			t.Errorf("info:\n%s", out)
		}
		disktest.Compare(t, src.Name(), "driver=qcow2,file.filename="+image)
	})
}

func TestReader(t *testing.T) {
	each(t, func(t *testing.T, src *os.File, size int64, opt Options) {
		f, err := os.Open(convert(t, src, size, opt))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, got, err := qcowview.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		if got != size {
			t.Fatalf("size %d, want %d", got, size)
		}
		a, b := make([]byte, mib), make([]byte, mib)
		for at := int64(0); at < size; at += mib {
			n := min(mib, size-at)
			_, err1 := src.ReadAt(a[:n], at)
			_, err2 := img.ReadAt(b[:n], at)
			if err1 != nil || err2 != nil && err2 != io.EOF || !bytes.Equal(a[:n], b[:n]) {
				t.Fatalf("at %d: %v, %v, equal %v", at, err1, err2, bytes.Equal(a[:n], b[:n]))
			}
		}
	})
}

// TestSameBytes holds one processor against several, and a file with holes
// against a reader that knows of none.
func TestSameBytes(t *testing.T) {
	const size = 20*mib + 1024
	for kind, opt := range kinds {
		t.Run(kind, func(t *testing.T) {
			src := disktest.Disk(t, size)
			want, _ := os.ReadFile(convert(t, io.NewSectionReader(src, 0, size), size, opt))
			disktest.Processors(t, func(n int) {
				if got, _ := os.ReadFile(convert(t, src, size, opt)); !bytes.Equal(got, want) {
					t.Errorf("with %d processors the image is another", n)
				}
			})
		})
	}
}

func TestZeroDiskIsSmall(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "zero"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 40); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(convert(t, f, 1<<40, Options{}))
	if err != nil || info.Size() > 8*clusterSize {
		t.Errorf("%v, %d bytes", err, info.Size())
	}
}

func TestRefused(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	cases := map[string]struct {
		ctx  context.Context
		src  io.ReaderAt
		size int64
		want string
	}{
		"odd size":  {t.Context(), disktest.Failing{}, 1000, "whole sectors"},
		"no size":   {t.Context(), disktest.Failing{}, 0, "whole sectors"},
		"read":      {t.Context(), disktest.Failing{After: 10 * mib}, 20 * mib, "reading the disk at 10485760"},
		"cancelled": {cancelled, disktest.Failing{After: 1 << 40}, 1 << 30, "canceled"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Write(c.ctx, f, c.src, c.size, Options{Compress: true}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	f, err := os.Open(os.DevNull) // not open for writing
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(t.Context(), f, disktest.Failing{After: 1 << 40}, mib, Options{}); err == nil {
		t.Error("a read-only destination was taken")
	}
}
