// Package disktest makes disks for the tests of what writes or reads images, and holds
// images against the tools that know their formats.
package disktest

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

const mib = 1 << 20

// Disk makes a sparse file of that size with text, noise, written zeros and holes.
func Disk(t testing.TB, size int64) *os.File {
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
	for sum := sha256.Sum256(nil); len(noise) < 200_000; sum = sha256.Sum256(sum[:]) {
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
	put(text, 600*mib) // under another table, in formats that have some
	put(noise, 601*mib)
	put(text, size-1000) // the last cluster, perhaps not a whole one
	return f
}

// Tool runs a tool, which must succeed, and returns what it printed.
func Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	if _, err := run.Look(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := run.Output(t.Context(), run.Cmd{Name: name, Args: args})
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Compare has qemu-img compare a raw disk with an image, given as its options.
func Compare(t testing.TB, raw, image string) {
	t.Helper()
	Tool(t, "qemu-img", "compare", "--image-opts", "driver=raw,file.filename="+raw, image)
}

// Processors runs a test with one processor, with two and with seven.
func Processors(t *testing.T, test func(n int)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, n := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(n)
		test(n)
	}
}

// Failing is a disk full of ones that cannot be read from some byte on.
type Failing struct{ After int64 }

// ReadAt implements io.ReaderAt.
func (f Failing) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.After {
		return 0, io.ErrUnexpectedEOF
	}
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}
