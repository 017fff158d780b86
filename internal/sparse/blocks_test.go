package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const kib = 1 << 10

// holed makes a file of that size with text at some places.
func holed(t testing.TB, size int64, texts map[int64]string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, text := range texts {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// blocks says what Blocks gives, "offset text", packed by upper case.
func blocks(t testing.TB, src io.ReaderAt, size int64) (out []string) {
	t.Helper()
	upper := func() (func(*Block) error, error) {
		return func(b *Block) error {
			_, err := b.Packed.Write(bytes.ToUpper(b.Plain))
			return err
		}, nil
	}
	err := Blocks(t.Context(), src, size, 64*kib, upper, func(b *Block) error {
		out = append(out, fmt.Sprintf("%d %s", b.At>>10, strings.Trim(b.Packed.String(), "\x00")))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBlocks(t *testing.T) {
	f := holed(t, 1<<20+77, map[int64]string{0: "first", 200*kib + 5: "second", 300 * kib: strings.Repeat("\x00", 100*kib), 640*kib - 2: "across", 1<<20 + 70: "the end"})
	want := []string{"0 FIRST", "192 SECOND", "576 AC", "640 ROSS", "1024 THE END"}
	for processors, src := range map[int]io.ReaderAt{1: f, 2: f, 7: io.NewSectionReader(f, 0, 1<<21)} {
		old := runtime.GOMAXPROCS(processors)
		if diff := cmp.Diff(want, blocks(t, src, 1<<20+77)); diff != "" {
			t.Errorf("%d processors: %s", processors, diff)
		}
		runtime.GOMAXPROCS(old)
	}
}

func TestJoined(t *testing.T) {
	f := holed(t, 512*kib, map[int64]string{130 * kib: "disk", 400 * kib: "more"})
	j := Joined{{Src: strings.NewReader("head"), Size: 4}, {Src: f, At: 128 * kib, Size: 384 * kib}, {Size: 128 * kib}, {Src: strings.NewReader("a tail"), At: 2, Size: 4}}
	plain, err := io.ReadAll(io.NewSectionReader(j, 0, j.Size()))
	if err != nil || int64(len(plain)) != j.Size() || j.Size() != 512*kib+8 {
		t.Fatalf("%d of %d bytes, %v", len(plain), j.Size(), err)
	}
	for at, want := range map[int64]string{0: "head\x00", 4 + 2*kib: "disk\x00", 4 + 272*kib: "more\x00", 512*kib + 3: "\x00tail"} {
		if got := string(plain[at : at+5]); got != want {
			t.Errorf("at %d: %q, want %q", at, got, want)
		}
	}
	if diff := cmp.Diff([]string{"0 HEAD" + strings.Repeat("\x00", 2*kib) + "DISK", "256 MORE", "512 TAIL"}, blocks(t, j, j.Size())); diff != "" {
		t.Error(diff)
	}
	if n, err := j.ReadAt(make([]byte, 10), j.Size()-4); n != 4 || err != io.EOF {
		t.Error(n, err)
	}
	if n, err := (Joined{{Src: strings.NewReader("ab"), Size: 5}}).ReadAt(make([]byte, 5), 0); n != 2 || err != io.EOF {
		t.Error(n, err)
	}
}

func TestCopy(t *testing.T) {
	src := holed(t, 40<<20, map[int64]string{5 << 20: "here", 39 << 20: "there"})
	dst := holed(t, 0, nil)
	if err := Copy(t.Context(), dst, src, 40<<20); err != nil {
		t.Fatal(err)
	}
	a, _, err1 := SHA256(src)
	b, _, err2 := SHA256(dst)
	if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
		t.Error(err1, err2, "the copy is another")
	}
	if at, _, err := next(dst, 6<<20, 40<<20); err != nil || at < 30<<20 {
		t.Errorf("the hole is gone: data at %d, %v", at, err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(cancelled, dst, src, 40<<20); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestBlocksFail has each stage fail: nothing hangs, and the error is its.
func TestBlocksFail(t *testing.T) {
	f := holed(t, 1<<20, map[int64]string{0: strings.Repeat("x", 1<<20)})
	wrong := errors.New("wrong")
	good := func(*Block) error { return nil }
	bad := func(*Block) error { return wrong }
	for name, run := range map[string]func(ctx context.Context) error{
		"newPack": func(ctx context.Context) error {
			return Blocks(ctx, f, 1<<20, kib, func() (func(*Block) error, error) { return nil, wrong }, good)
		},
		"pack": func(ctx context.Context) error {
			return Blocks(ctx, f, 1<<20, kib, func() (func(*Block) error, error) { return bad, nil }, good)
		},
		"put": func(ctx context.Context) error { return Blocks(ctx, f, 1<<20, kib, nil, bad) },
	} {
		if err := run(t.Context()); !errors.Is(err, wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Blocks(t.Context(), strings.NewReader("x"), 2, kib, nil, good); err == nil {
		t.Error("a disk that is too short was taken")
	}
}
