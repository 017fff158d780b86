package sparse

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestSHA256 holds the digest against the one of the same bytes read plainly.
func TestSHA256(t *testing.T) {
	const mib = 1 << 20
	for name, parts := range map[string]map[int64]int{ // offset → bytes of data
		"empty":           {},
		"data":            {0: 3*mib + 17},
		"hole":            {5 * mib: 0},
		"hole first":      {3*mib + 4096: 10_000},
		"hole last":       {0: 4096, 7*mib + 1: 0},
		"holes all about": {0: 1, 2 * mib: mib, 9 * mib: 4097, 20*mib + 5: 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "file"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for at, n := range parts {
				if info, _ := f.Stat(); info.Size() < at {
					if err := f.Truncate(at); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := f.WriteAt(bytes.Repeat([]byte{'x'}, n), at); err != nil {
					t.Fatal(err)
				}
			}
			plain, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			want := sha256.Sum256(plain)
			got, size, err := SHA256(f)
			if err != nil || size != int64(len(plain)) || !bytes.Equal(got, want[:]) {
				t.Errorf("%x of %d bytes (%v), want %x of %d", got, size, err, want, len(plain))
			}
		})
	}
}

// TestShorter has the file end where it was promised to go on: a fault is an error.
func TestShorter(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := addData(sha256.New(), f, 0, 10_000); err != nil {
		t.Error(err)
	}
	if err := addData(sha256.New(), f, 5000, 100_000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, want %v", err, io.ErrUnexpectedEOF)
	}
}
