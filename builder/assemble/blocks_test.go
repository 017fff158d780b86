package assemble

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// TestBlocks seals one tree whose files lie in the cache, hashed anew and then known,
// and wants the bytes of the same tree whose files nobody knows anything of.
func TestBlocks(t *testing.T) {
	text := make([]byte, 9<<20)
	for i := range text {
		text[i] = byte(i>>12 ^ i>>3 ^ i)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(archive, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	plain, kept := tree.New(), tree.New()
	for name, part := range map[string][2]int64{"a": {512, 5 << 20}, "b": {1024, 4096}, "c": {3 << 20, 4097}, "d": {7, 4095}, "e": {6<<20 + 1, 2<<20 + 4094}, "twice": {1024, 4096}} {
		for tr, c := range map[*tree.Tree]tree.Content{plain: tree.Bytes(text[part[0] : part[0]+part[1]]), kept: tree.Section{File: archive, Offset: part[0], Length: part[1]}} {
			if err := tr.Put("usr/"+name, tree.Node{Mode: 0o644, Content: c}); err != nil {
				t.Fatal(err)
			}
		}
	}
	seal := func(tr *tree.Tree) []byte {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(t.TempDir(), "disk"), os.O_CREATE|os.O_RDWR, fs.FileMode(0o600))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s := Sealed{dataAt: mib}
		if err := s.write(t.Context(), "test", tr, f, cache); err != nil {
			t.Fatal(err)
		}
		if err := sparse.Pour(t.Context(), f, s.later).Wait(); err != nil {
			t.Fatal(err)
		}
		disk, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return append(s.hash, disk...)
	}
	want := seal(plain)
	for range 2 {
		if got := seal(kept); !bytes.Equal(got, want) {
			t.Errorf("root hash %x, want %x", got[:32], want[:32])
		}
	}
	entries, err := cache.List()
	if err != nil || len(entries) != 2 { // of no section, and of these
		t.Errorf("the cache has %+v, %v", entries, err)
	}
}
