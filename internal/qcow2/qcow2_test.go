package qcow2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/lima-vm/go-qcow2reader"

	"github.com/imgbuild/imgbuild/internal/run"
)

const mib = 1 << 20

// disk makes a sparse file with text, noise, written zeros and holes.
func disk(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	var noise []byte // does not pack
	for sum := sha256.Sum256(nil); len(noise) < 3*clusterSize; sum = sha256.Sum256(sum[:]) {
		noise = append(noise, sum[:]...)
	}
	text := []byte(strings.Repeat("a line of text that packs well\n", 20_000))
	put := func(b []byte, at int64) {
		if at < 0 || at >= size {
			return
		}
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	put(text, 0)
	put(noise, 5*mib+12345)
	put(make([]byte, 2*mib), 8*mib)
	put(text, 600*mib) // under another second-level table
	put(noise, 601*mib)
	put(text, size-1000) // the last cluster, perhaps not a whole one
	return f
}

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
			t.Run(fmt.Sprintf("%s/%d", kind, size), func(t *testing.T) { test(t, disk(t, size), size, opt) })
		}
	}
}

func TestQemuImg(t *testing.T) {
	if _, err := run.Look("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed (package qemu-utils)")
	}
	each(t, func(t *testing.T, src *os.File, size int64, opt Options) {
		image := convert(t, src, size, opt)
		for _, args := range [][]string{
			{"check", "-f", "qcow2", image},
			{"compare", "-f", "raw", "-F", "qcow2", src.Name(), image},
		} {
			var out bytes.Buffer
			if err := run.Run(t.Context(), run.Cmd{Name: "qemu-img", Args: args, Stdout: &out}); err != nil {
				t.Errorf("%s: %v\n%s", args[0], err, out.String())
			}
			if args[0] == "check" && !strings.Contains(out.String(), "No errors") {
				t.Errorf("check:\n%s", out.String())
			}
		}
	})
}

func TestReader(t *testing.T) {
	each(t, func(t *testing.T, src *os.File, size int64, opt Options) {
		f, err := os.Open(convert(t, src, size, opt))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, err := qcow2reader.Open(f)
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != size {
			t.Fatalf("size %d, want %d", img.Size(), size)
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
			src := disk(t, size)
			first, _ := os.ReadFile(convert(t, src, size, opt))
			old := runtime.GOMAXPROCS(1)
			second, _ := os.ReadFile(convert(t, src, size, opt))
			runtime.GOMAXPROCS(7)
			third, _ := os.ReadFile(convert(t, io.NewSectionReader(src, 0, size), size, opt))
			runtime.GOMAXPROCS(old)
			if !bytes.Equal(first, second) || !bytes.Equal(first, third) {
				t.Error("runs differ")
			}
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

type failing struct{ after int64 }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.after {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, bytes.Repeat([]byte{1}, len(p))), nil
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
		"odd size":  {t.Context(), failing{}, 1000, "whole sectors"},
		"no size":   {t.Context(), failing{}, 0, "whole sectors"},
		"read":      {t.Context(), failing{10 * mib}, 20 * mib, "reading the disk at 10485760"},
		"cancelled": {cancelled, failing{1 << 40}, 1 << 30, "canceled"},
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
	if err := Write(t.Context(), f, failing{1 << 40}, mib, Options{}); err == nil {
		t.Error("a read-only destination was taken")
	}
}
