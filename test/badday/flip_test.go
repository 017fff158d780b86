package badday

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/run"
)

// TestFlips flips one bit at a time in everything that a signed build left: each
// is found with the key, and those in the disk's sealed parts without it, too.
func TestFlips(t *testing.T) {
	const name = "a bit flipped in image, bill, statement, manifest or signature"
	_ = good(t) // makes the lock
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	for _, args := range [][]string{{"ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key}, {"pkey", "-in", key, "-pubout", "-out", key + ".pub"}} {
		if err := run.Run(t.Context(), run.Cmd{Name: "openssl", Args: args, Quiet: true}); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := build(t.Context(), dir, "", "--sign", key); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	public, err := verify.PublicKey(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "worker.raw")
	sound, err := verify.Image(t.Context(), image)
	if err != nil || len(sound.Findings) > 0 {
		t.Fatal(err, sound.Findings)
	}
	files, err := filepath.Glob(filepath.Join(dir, "worker.*"))
	if err != nil || len(files) < 10 {
		t.Fatal(err, files)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range times(2, 100) * 10 {
		file := files[i%len(files)]
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		at, bit := r.Int64N(info.Size()), byte(1)<<r.IntN(8)
		flip(t, file, at, bit)
		report := &verify.Report{RootHash: sound.RootHash}
		err = report.Beside(image, public)
		held(t, name, err != nil || len(report.Findings) > 0, "%s: bit %#x of byte %d was flipped, and nobody noticed", filepath.Base(file), bit, at)
		flip(t, file, at, bit)
	}
	for _, p := range sound.Partitions[1:] {
		for range times(1, 10) {
			at := p.Start + r.Int64N(p.Size)
			flip(t, image, at, 1)
			report, err := verify.Image(t.Context(), image)
			if err == nil && len(report.Findings) == 0 {
				t.Errorf("byte %d of %s was changed, and verify without anything beside the image did not notice", at, p.Name)
			}
			flip(t, image, at, 1)
		}
	}
	if again, err := verify.Image(t.Context(), image); err != nil || len(again.Findings) > 0 {
		t.Errorf("all bits are back, and verify says %v %v", err, again.Findings)
	}
}

func flip(t *testing.T, file string, at int64, bit byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	b[0] ^= bit
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
