package compress

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

const mib = 1 << 20

// formats are the writers, with the tool that tests and unpacks.
var formats = map[string]func(context.Context, io.Writer, io.ReaderAt, int64) error{"gzip": Gzip, "zstd": Zstd}

// TestTools has gzip and zstd unpack disks whose end is in a hole, in data, or of a part of a block.
func TestTools(t *testing.T) {
	for tool, write := range formats {
		for name, size := range map[string]int64{"whole blocks": 20 * mib, "part of a block": 19*mib + 512, "one sector": 512} {
			t.Run(tool+"/"+name, func(t *testing.T) {
				disk := disktest.Disk(t, size)
				if name == "whole blocks" { // the rest is a hole
					size = 30 * mib
					if err := disk.Truncate(size); err != nil {
						t.Fatal(err)
					}
				}
				var packed bytes.Buffer
				if err := write(t.Context(), &packed, disk, size); err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), "disk.gz")
				if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				disktest.Tool(t, tool, "-q", "-t", file)
				want, err := os.ReadFile(disk.Name())
				if err != nil || disktest.Tool(t, tool, "-q", "-d", "-c", file) != string(want) {
					t.Errorf("%v; unpacked, the disk is another", err)
				}
			})
		}
	}
}

// TestZstdFrames: a frame says how large it is, so that it can be unpacked with the memory that takes.
func TestZstdFrames(t *testing.T) {
	var packed bytes.Buffer
	if err := Zstd(t.Context(), &packed, disktest.Disk(t, 5*mib), 5*mib); err != nil {
		t.Fatal(err)
	}
	var h zstd.Header
	if err := h.Decode(packed.Bytes()); err != nil || !h.HasFCS || h.FrameContentSize != block || !h.HasCheckSum || !h.SingleSegment {
		t.Errorf("%v, %+v", err, h)
	}
}

// TestGzipIsOneMember: some readers stop after the first.
func TestGzipIsOneMember(t *testing.T) {
	var packed bytes.Buffer
	if err := Gzip(t.Context(), &packed, disktest.Disk(t, 5*mib), 5*mib); err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	r.Multistream(false)
	if n, err := io.Copy(io.Discard, r); n != 5*mib || err != nil || packed.Len() > 0 {
		t.Errorf("%d bytes, %v, %d bytes behind it", n, err, packed.Len())
	}
}

// TestSameBytes holds one processor against several, and a file with holes
// against a reader that knows of none.
func TestSameBytes(t *testing.T) {
	src := disktest.Disk(t, 20*mib)
	for name, write := range formats {
		var want bytes.Buffer
		if err := write(t.Context(), &want, io.NewSectionReader(src, 0, 20*mib), 20*mib); err != nil {
			t.Fatal(err)
		}
		disktest.Processors(t, func(n int) {
			var got bytes.Buffer
			if err := write(t.Context(), &got, src, 20*mib); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%s with %d processors: %v, or other bytes", name, n, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, write := range formats {
		for want, run := range map[string]func() error{
			"disk of 0 bytes":             func() error { return write(t.Context(), io.Discard, disktest.Failing{}, 0) },
			"reading the disk at 4194304": func() error { return write(t.Context(), io.Discard, disktest.Failing{After: 4 * mib}, 20*mib) },
			"canceled":                    func() error { return write(cancelled, io.Discard, disktest.Failing{After: 1 << 40}, 20*mib) },
			"short write":                 func() error { return write(t.Context(), full{}, disktest.Failing{After: 1 << 40}, 20*mib) },
		} {
			if err := run(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want one with %q", name, err, want)
			}
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
