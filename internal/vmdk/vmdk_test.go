package vmdk

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

const mib = 1 << 20

func pack(t testing.TB, src io.ReaderAt, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(t.Context(), &out, src, size, repro.UUID("test")); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestQemuImg takes one grain table, several of which some are left out, and a disk of nothing.
func TestQemuImg(t *testing.T) {
	empty, err := os.Create(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if err := empty.Truncate(mib); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]*os.File{"small": disktest.Disk(t, mib), "table": disktest.Disk(t, 32*mib), "tables": disktest.Disk(t, 640*mib), "empty": empty} {
		t.Run(name, func(t *testing.T) {
			info, err := src.Stat()
			if err != nil {
				t.Fatal(err)
			}
			image := filepath.Join(t.TempDir(), "disk.vmdk")
			if err := os.WriteFile(image, pack(t, src, info.Size()), 0o600); err != nil {
				t.Fatal(err)
			}
			if out := disktest.Tool(t, "qemu-img", "check", "-f", "vmdk", image); !strings.Contains(out, "No errors") {
				t.Errorf("check:\n%s", out)
			}
			if out := disktest.Tool(t, "qemu-img", "info", image); !strings.Contains(out, "create type: streamOptimized") {
				t.Errorf("info:\n%s", out)
			}
			disktest.Compare(t, src.Name(), "driver=vmdk,file.filename="+image)
		})
	}
}

// TestSameBytes holds one processor against several, and a file with holes
// against a reader that knows of none.
func TestSameBytes(t *testing.T) {
	src := disktest.Disk(t, 20*mib)
	want := pack(t, io.NewSectionReader(src, 0, 20*mib), 20*mib)
	disktest.Processors(t, func(n int) {
		if !bytes.Equal(pack(t, src, 20*mib), want) {
			t.Errorf("with %d processors the image is another", n)
		}
	})
}

func TestRefused(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		w    io.Writer
		size int64
		good int64 // bytes of the disk that can be read
		want string
	}{
		"no whole MiB": {t.Context(), io.Discard, mib + 512, 1 << 40, "whole MiB"},
		"nothing":      {t.Context(), io.Discard, 0, 1 << 40, "whole MiB"},
		"too large":    {t.Context(), io.Discard, maxSize + mib, 1 << 40, "whole MiB"},
		"read":         {t.Context(), io.Discard, 20 * mib, 10 * mib, "reading the disk at 10485760"},
		"write":        {t.Context(), full{}, 20 * mib, 1 << 40, "short write"},
		"cancelled":    {cancelled, io.Discard, 1 << 30, 1 << 40, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Write(c.ctx, c.w, disktest.Failing{After: c.good}, c.size, repro.UUID("test")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
