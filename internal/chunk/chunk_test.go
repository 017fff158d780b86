package chunk

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

const mib = 1 << 20

// noise makes bytes that do not pack, others for each seed.
func noise(seed byte, size int) []byte {
	out := make([]byte, 0, size+sha256.Size)
	for sum := sha256.Sum256([]byte{seed}); len(out) < size; sum = sha256.Sum256(sum[:]) {
		out = append(out, sum[:]...)
	}
	return out[:size]
}

func file(t testing.TB, text ...[]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(bytes.Join(text, nil)); err != nil {
		t.Fatal(err)
	}
	return f
}

// cut returns the sizes of a file's chunks by digest, and puts them together again.
func cut(t testing.TB, f *os.File) (chunks map[[32]byte]int, again []byte) {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	chunks, again = map[[32]byte]int{}, make([]byte, info.Size())
	last := int64(0)
	err = Cut(t.Context(), f, info.Size(), func(at int64, plain []byte) error {
		if at < last || len(plain) == 0 || len(plain) > Max {
			t.Errorf("a chunk of %d bytes at %d, behind %d", len(plain), at, last)
		}
		last = at + int64(copy(again[at:], plain))
		chunks[sha256.Sum256(plain)] = len(plain)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, again
}

func TestCutIsTheFile(t *testing.T) {
	for name, f := range map[string]*os.File{"disk": disktest.Disk(t, 20*mib+512), "empty": file(t), "zeros": file(t, make([]byte, mib)),
		"a byte": file(t, []byte("x")), "noise": file(t, noise(1, 30*mib))} {
		want, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if _, got := cut(t, f); !bytes.Equal(got, want) {
			t.Errorf("%s: together, the chunks are another file", name)
		}
	}
}

// TestShared: what moves is cut at the same places, before and behind what changed.
func TestShared(t *testing.T) {
	a, b := noise(1, 24*mib), noise(2, 24*mib)
	before, _ := cut(t, file(t, a, b))
	after, _ := cut(t, file(t, a, noise(3, 3*4096), b))
	fresh := 0
	for sum, size := range after {
		if before[sum] == 0 {
			fresh += size
		}
	}
	if fresh == 0 || fresh > 2*Max {
		t.Errorf("12 KiB were put in, and %d bytes are new", fresh)
	}
}

func TestPack(t *testing.T) {
	p, err := NewPacker()
	if err != nil {
		t.Fatal(err)
	}
	u, err := NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range [][]byte{[]byte("x"), noise(1, Max), make([]byte, Max), bytes.Repeat([]byte("text"), mib)} {
		packed := p.Pack(plain)
		if got, err := u.Unpack(packed, len(plain)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", len(plain), err)
		}
		other, err := NewPacker()
		if err != nil || !bytes.Equal(other.Pack(plain), packed) {
			t.Errorf("%d bytes are packed in two ways (%v)", len(plain), err)
		}
		for _, size := range []int{len(plain) - 1, len(plain) + 1, 0, -1, Max + 1} {
			if _, err := u.Unpack(packed, size); err == nil {
				t.Errorf("%d bytes were taken for %d", len(plain), size)
			}
		}
	}
}

// TestBombs: a frame that holds more than it may takes no memory for it.
func TestBombs(t *testing.T) {
	u, err := NewUnpacker()
	if err != nil {
		t.Fatal(err)
	}
	stream := func(size int64, o ...zstd.EOption) []byte {
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, o...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(z, zeros{}, size); err != nil {
			t.Fatal(err)
		}
		_ = z.Close()
		return b.Bytes()
	}
	one := stream(mib)
	for name, packed := range map[string][]byte{
		"a gigabyte":      stream(1 << 30),
		"many frames":     bytes.Repeat(one, 100),
		"a large window":  stream(64*mib, zstd.WithWindowSize(64*mib)),
		"no frame":        []byte("zeros"),
		"nothing":         nil,
		"half a frame":    one[:len(one)/2],
		"more behind":     append(bytes.Clone(one), "junk"...),
		"claims too much": {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 0},
	} {
		if got, err := u.Unpack(packed, mib); err == nil || cap(got) > 2*mib {
			t.Errorf("%s: %v, %d bytes", name, err, cap(got))
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var from, to = flag.String("from", "", "a disk, raw"), flag.String("to", "", "a later version of it")

// TestVersions measures what has to travel for a new version, by -from and -to.
func TestVersions(t *testing.T) {
	if *from == "" {
		t.Skip("needs two versions of a disk: -from old.raw -to new.raw")
	}
	p, err := NewPacker()
	if err != nil {
		t.Fatal(err)
	}
	have := map[[32]byte]bool{}
	for _, name := range []string{*from, *to} {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		n, all, fresh, packed := 0, 0, 0, 0
		if err := Cut(t.Context(), f, info.Size(), func(_ int64, plain []byte) error {
			n++
			if sum := sha256.Sum256(plain); !have[sum] {
				have[sum] = true
				fresh++
				packed += len(p.Pack(plain))
			}
			all += len(plain)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of data in %d chunks, of which %d are new: %d bytes, packed", name, all, n, fresh, packed)
	}
}
