package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
)

// TestPatch changes clusters of every kind, twice, and has qemu-img judge what comes of it.
func TestPatch(t *testing.T) {
	each(t, func(t *testing.T, src *os.File, size int64, opt Options) {
		image := convert(t, src, size, opt)
		want, err := os.OpenFile(disktest.Disk(t, size).Name(), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		f, err := os.OpenFile(image, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		chance := rand.New(rand.NewSource(size)) // #nosec G404 -- chance, not secrecy
		for range 2 {
			clusters := map[int64][]byte{}
			for range min(40, size/clusterSize+1) {
				at := chance.Int63n((size+clusterSize-1)/clusterSize) * clusterSize
				data := make([]byte, clusterSize)
				_, _ = chance.Read(data)
				clear(data[min(clusterSize, size-at):])
				clusters[at] = data
				if _, err := want.WriteAt(data[:min(clusterSize, size-at)], at); err != nil {
					t.Fatal(err)
				}
			}
			if err := Patch(f, clusters); err != nil {
				t.Fatal(err)
			}
			if out := disktest.Tool(t, "qemu-img", "check", "-f", "qcow2", image); !strings.Contains(out, "No errors") {
				t.Errorf("check:\n%s", out)
			}
			disktest.Compare(t, want.Name(), "driver=qcow2,file.filename="+image)
		}
	})
}

// TestPatchQemuImg changes images that another writer made.
func TestPatchQemuImg(t *testing.T) {
	const size = 20*mib + 1024
	for name, args := range map[string][]string{"plain": nil, "deflate": {"-c"}, "zstd": {"-c", "-o", "compression_type=zstd"}} {
		t.Run(name, func(t *testing.T) {
			src := disktest.Disk(t, size)
			image := filepath.Join(t.TempDir(), "image")
			disktest.Tool(t, "qemu-img", append(append([]string{"convert", "-O", "qcow2"}, args...), src.Name(), image)...)
			f, err := os.OpenFile(image, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			data := bytes.Repeat([]byte("other"), clusterSize)[:clusterSize]
			for _, at := range []int64{0, 5 * mib, 19 * mib} { // packed, noise, a hole
				if _, err := src.WriteAt(data, at); err != nil {
					t.Fatal(err)
				}
				if err := Patch(f, map[int64][]byte{at: data}); err != nil {
					t.Fatal(err)
				}
			}
			if out := disktest.Tool(t, "qemu-img", "check", "-f", "qcow2", image); !strings.Contains(out, "No errors") {
				t.Errorf("check:\n%s", out)
			}
			disktest.Compare(t, src.Name(), "driver=qcow2,file.filename="+image)
		})
	}
}

// TestPatchRefused wants an image of another kind, and one that makes no sense, to be
// refused with a word on what is wrong.
func TestPatchRefused(t *testing.T) {
	const size = 20*mib + 1024
	good, err := os.ReadFile(convert(t, disktest.Disk(t, size), size, Options{Compress: true}))
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	one := map[int64][]byte{0: make([]byte, clusterSize)}
	for name, c := range map[string]struct {
		change   func(b []byte) []byte
		clusters map[int64][]byte
		want     string
	}{
		"raw":             {func([]byte) []byte { return make([]byte, 1<<20) }, one, "no qcow2"},
		"short":           {func(b []byte) []byte { return b[:50] }, one, "EOF"},
		"version 2":       {func(b []byte) []byte { be.PutUint32(b[4:], 2); return b }, one, "version 3"},
		"backing file":    {func(b []byte) []byte { be.PutUint64(b[8:], 300); return b }, one, "a backing file"},
		"small clusters":  {func(b []byte) []byte { be.PutUint32(b[20:], 12); return b }, one, "clusters of 2^12"},
		"encrypted":       {func(b []byte) []byte { be.PutUint32(b[32:], 2); return b }, one, "encryption"},
		"snapshots":       {func(b []byte) []byte { be.PutUint32(b[60:], 1); return b }, one, "snapshots"},
		"dirty":           {func(b []byte) []byte { be.PutUint64(b[72:], 1); return b }, one, "features"},
		"table far away":  {func(b []byte) []byte { be.PutUint64(b[40:], 1<<40); return b }, one, "no table"},
		"table nowhere":   {func(b []byte) []byte { be.PutUint64(b[40:], 1<<60); return b }, one, "no sense"},
		"counts far away": {func(b []byte) []byte { be.PutUint64(b[48:], 1<<40); return b }, one, "no table"},
		"no counts":       {func(b []byte) []byte { be.PutUint32(b[56:], 0); return b }, one, "reference counts"},
		"tables in the header": {func(b []byte) []byte {
			be.PutUint64(b[be.Uint64(b[40:]):], 512)
			return b
		}, one, "no cluster at 512"},
		"beyond the disk": {func(b []byte) []byte { return b }, map[int64][]byte{40 << 20: make([]byte, clusterSize)}, "no cluster"},
		"half a cluster":  {func(b []byte) []byte { return b }, map[int64][]byte{0: make([]byte, 512)}, "no cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, c.change(bytes.Clone(good)), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := Patch(f, c.clusters); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// FuzzPatch changes what may be anything: an error or a file, in no time.
func FuzzPatch(f *testing.F) {
	var t testing.TB = f
	for _, opt := range kinds {
		data, err := os.ReadFile(convert(t, bytes.NewReader(bytes.Repeat([]byte("ab"), clusterSize)), 2*clusterSize, opt))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		image, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		_, err = image.Write(data)
		if err := errors.Join(err, ignore(Patch(image, map[int64][]byte{clusterSize: make([]byte, clusterSize)}))); err != nil {
			t.Fatal(err)
		}
		if info, err := image.Stat(); err != nil || info.Size() > int64(len(data))+8*clusterSize {
			t.Errorf("%d bytes become %d, %v", len(data), info.Size(), err)
		}
	})
}

func ignore(error) error { return nil }
