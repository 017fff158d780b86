package erofs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/tree"
)

// BenchmarkWrite packs a tree the size of a node's root: 12,000 entries, 700 MB.
func BenchmarkWrite(b *testing.B) {
	tr := tree.New()
	content := bytes.Repeat([]byte("0123456789abcdef"), 3700) // 59,200 bytes
	for i := range 12_000 {
		if err := tr.Put(fmt.Sprintf("usr/d%d/f%d", i%300, i), tree.Node{Mode: 0o644, Content: tree.Bytes(content)}); err != nil {
			b.Fatal(err)
		}
	}
	name := filepath.Join(b.TempDir(), "root.erofs")
	b.SetBytes(int64(len(content)) * 12_000)
	b.ReportAllocs()
	for b.Loop() {
		f, err := os.Create(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Write(b.Context(), f, tr, options); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
	}
}
