package vhdx

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

func write(t testing.TB, src io.ReaderAt, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := Write(t.Context(), f, src, size, repro.UUID("test")); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestQemuImg takes a small disk, one of more than a chunk of blocks, and a disk of nothing.
func TestQemuImg(t *testing.T) {
	for name, sizes := range map[string][2]int64{"small": {mib, mib}, "some": {40 * mib, 40 * mib}, "chunks": {640 * mib, (perChunk + 100) * mib}, "empty": {0, 3 * mib}} {
		t.Run(name, func(t *testing.T) {
			if name == "chunks" && testing.Short() {
				t.Skip("has qemu-img read 4 GiB")
			}
			src := disktest.Disk(t, sizes[0])
			if err := src.Truncate(sizes[1]); err != nil {
				t.Fatal(err)
			}
			if name == "chunks" { // behind the place of a bitmap's entry
				if _, err := src.WriteAt([]byte("the last block"), sizes[1]-mib); err != nil {
					t.Fatal(err)
				}
			}
			image := write(t, src, sizes[1]).Name()
			if out := disktest.Tool(t, "qemu-img", "check", "-f", "vhdx", image); !strings.Contains(out, "No errors") {
				t.Errorf("check:\n%s", out)
			}
			disktest.Compare(t, src.Name(), "driver=vhdx,file.filename="+image)
		})
	}
}

// TestSameBytes holds one processor against several, and a file with holes
// against a reader that knows of none.
func TestSameBytes(t *testing.T) {
	src := disktest.Disk(t, 20*mib)
	want, _ := os.ReadFile(write(t, io.NewSectionReader(src, 0, 20*mib), 20*mib).Name())
	disktest.Processors(t, func(n int) {
		if got, _ := os.ReadFile(write(t, src, 20*mib).Name()); len(want) == 0 || !bytes.Equal(got, want) {
			t.Errorf("with %d processors the image is another", n)
		}
	})
}

func TestRefused(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		size int64
		want string
	}{
		"no whole MiB": {t.Context(), mib + 512, "whole MiB"},
		"nothing":      {t.Context(), 0, "whole MiB"},
		"too large":    {t.Context(), maxSize + mib, "whole MiB"},
		"read":         {t.Context(), 20 * mib, "reading the disk at 10485760"},
		"cancelled":    {cancelled, 1 << 30, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Write(c.ctx, f, disktest.Failing{After: 10 * mib}, c.size, repro.UUID("test")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	f, err := os.Open(os.DevNull) // not open for writing
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(t.Context(), f, disktest.Failing{After: 1 << 40}, mib, repro.UUID("test")); err == nil {
		t.Error("a read-only destination was taken")
	}
}
