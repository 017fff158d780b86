package verity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

var (
	salt = bytes.Repeat([]byte{0xa5}, 32)
	id   = repro.UUID("test", "verity")
)

// data makes a file of n blocks, no two alike.
func data(t testing.TB, blocks int) string {
	t.Helper()
	var buf bytes.Buffer
	for i := range blocks {
		buf.Write(bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), BlockSize/8))
	}
	name := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(name, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func create(t testing.TB, dataPath string) (string, Result) {
	t.Helper()
	hash := filepath.Join(t.TempDir(), "hash")
	out, err := os.Create(hash)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	text, err := os.ReadFile(dataPath)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), bytes.NewReader(text), salt).Write(out, int64(len(text)), id)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(hash); info.Size() != r.HashSize || r.HashSize%BlockSize != 0 {
		t.Fatalf("hash file has %d bytes, result says %d", info.Size(), r.HashSize)
	}
	return hash, r
}

// TestAgainstVeritysetup covers trees of no, one, two and three levels.
func TestAgainstVeritysetup(t *testing.T) {
	if _, err := run.Look("veritysetup"); err != nil {
		t.Skip("veritysetup is not installed (package cryptsetup-bin)")
	}
	for _, blocks := range []int{1, 2, 128, 129, 1000, 16385} {
		t.Run(fmt.Sprint(blocks), func(t *testing.T) {
			file := data(t, blocks)
			hash, r := create(t, file)
			root := hex.EncodeToString(r.RootHash)
			if err := run.Run(t.Context(), run.Cmd{Name: "veritysetup", Args: []string{"verify", file, hash, root}}); err != nil {
				t.Errorf("veritysetup verify: %v", err)
			}
			theirs := filepath.Join(t.TempDir(), "theirs")
			out, err := run.Output(t.Context(), run.Cmd{Name: "veritysetup", Args: []string{"format", file, theirs,
				"--salt=" + hex.EncodeToString(salt), "--uuid=" + id.String()}})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), root) {
				t.Errorf("root hash %s, veritysetup says:\n%s", root, out)
			}
			a, _ := os.ReadFile(hash)
			b, _ := os.ReadFile(theirs)
			if !bytes.Equal(a, append(b, make([]byte, len(a)-len(b))...)) {
				t.Error("the hash file differs from veritysetup's")
			}
		})
	}
}

func TestSameBytesTwice(t *testing.T) {
	file := data(t, 300)
	h1, r1 := create(t, file)
	h2, r2 := create(t, file)
	a, _ := os.ReadFile(h1)
	b, _ := os.ReadFile(h2)
	if !bytes.Equal(a, b) || !bytes.Equal(r1.RootHash, r2.RootHash) {
		t.Error("two runs differ")
	}
}

func TestRefused(t *testing.T) {
	cases := map[string]struct {
		size int64
		salt []byte
		want string
	}{
		"odd size":   {5000, salt, "5000 bytes"},
		"no data":    {0, salt, "0 bytes"},
		"short data": {2 * BlockSize, salt, "reading the data at byte 0"},
		"long salt":  {BlockSize, make([]byte, 257), "257 bytes"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, err := os.Create(filepath.Join(t.TempDir(), "hash"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			if _, err := New(t.Context(), bytes.NewReader(make([]byte, 5000)), c.salt).Write(out, c.size, id); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestKnown brings the digests of parts of the data in any order, and wants the tree
// of the same data that nobody knows anything of, without a look at those parts.
func TestKnown(t *testing.T) {
	all := make([]byte, 3*stretch+5*BlockSize)
	for i := range all {
		all[i] = byte(i>>12 ^ i)
	}
	clear(all[len(all)-100:]) // what Digests fills up
	var want memory
	w, err := New(t.Context(), bytes.NewReader(all), salt).Write(&want, int64(len(all)), id)
	if err != nil {
		t.Fatal(err)
	}
	type part struct{ from, size int64 }
	for name, parts := range map[string][]part{
		"all but the first": {{3 * stretch, 5*BlockSize - 100}, {2 * stretch, stretch}, {stretch, stretch}},
		"one in the middle": {{stretch + 7*BlockSize, 2*stretch - 9*BlockSize}},
		"two of a block":    {{0, BlockSize}, {stretch, BlockSize}},
		"all":               {{0, int64(len(all)) - 1}},
	} {
		t.Run(name, func(t *testing.T) {
			data := bytes.Clone(all)
			tree := New(t.Context(), bytes.NewReader(data), salt)
			for _, p := range parts {
				digests, err := Digests(bytes.NewReader(all[p.from:]), p.size, salt)
				if err != nil {
					t.Fatal(err)
				}
				tree.Know(p.from, io.NewSectionReader(bytes.NewReader(digests), 0, int64(len(digests))))
				clear(data[p.from : p.from+p.size])
			}
			var got memory
			g, err := tree.Write(&got, int64(len(all)), id)
			if err != nil || !bytes.Equal(g.RootHash, w.RootHash) || !bytes.Equal(got.text, want.text) {
				t.Errorf("root hash %x, %v; want %x", g.RootHash, err, w.RootHash)
			}
		})
	}
	if _, err := Digests(bytes.NewReader(all[:10]), 11, salt); err == nil {
		t.Error("data that end too early are hashed")
	}
}

// memory is a file in memory.
type memory struct {
	sync.Mutex
	text []byte
}

// WriteAt implements io.WriterAt.
func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.Lock()
	defer m.Unlock()
	if short := off + int64(len(p)) - int64(len(m.text)); short > 0 {
		m.text = append(m.text, make([]byte, short)...)
	}
	return copy(m.text[off:], p), nil
}
