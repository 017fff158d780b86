package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/internal/compress"
	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/repro"
	vhdxwriter "github.com/imgbuild/imgbuild/internal/vhdx"
	vmdkwriter "github.com/imgbuild/imgbuild/internal/vmdk"
)

// foreign are formats as QEMU writes them, from a raw disk.
var foreign = map[string][]string{
	"vmdk": {"-O", "vmdk", "-o", "subformat=streamOptimized"},
	"vhdx": {"-O", "vhdx"},
	"vhd":  {"-O", "vpc", "-o", "subformat=fixed,force_size=on"},
}

// TestForeign reads what others wrote, byte for byte.
func TestForeign(t *testing.T) {
	const size = 70 << 20
	raw := disktest.Disk(t, size)
	for name, options := range foreign {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			disktest.Tool(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, options...), raw.Name(), file)...)
			same(t, raw, file, name)
		})
	}
}

// TestPacked reads what the tools packed.
func TestPacked(t *testing.T) {
	raw := disktest.Disk(t, 20<<20)
	for format, args := range map[string][]string{"raw.zst": {"zstd", "-q", "-k"}, "raw.gz": {"gzip", "-k"}} {
		t.Run(format, func(t *testing.T) {
			disktest.Tool(t, args[0], append(args[1:], raw.Name())...)
			same(t, raw, raw.Name()+strings.TrimPrefix(format, "raw"), format)
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(raw.Name()), ".*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// TestUnpackBounds: no end of zeros, an end before the end, and no more than the disk takes.
func TestUnpackBounds(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for want, c := range map[string]struct {
		ctx context.Context
		r   io.Reader
	}{
		"more than 1000000 bytes": {t.Context(), io.LimitReader(zeros{}, 1_000_001)},
		"unexpected EOF":          {t.Context(), io.MultiReader(io.LimitReader(zeros{}, 10), iotest.ErrReader(io.ErrUnexpectedEOF))},
		"canceled":                {cancelled, zeros{}},
	} {
		if _, err := unpack(c.ctx, f, c.r, 1_000_000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(f.Name())); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// FuzzPacked gives whole small files, of what is unpacked.
func FuzzPacked(f *testing.F) {
	f.Add(ours(f, func(w io.Writer, disk *os.File, size int64) error { return compress.Zstd(f.Context(), w, disk, size) }))
	f.Add(ours(f, func(w io.Writer, disk *os.File, size int64) error { return compress.Gzip(f.Context(), w, disk, size) }))
	f.Fuzz(func(t *testing.T, b []byte) { _ = opening(t, b) })
}

// TestPackedText: a config that is packed as a disk is no config, and not good.
func TestPackedText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("#cloud-config\n"+strings.Repeat("# nothing\n", 200)), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Tool(t, "zstd", "-q", file)
	if r, err := Image(t.Context(), file+".zst"); err == nil || !strings.Contains(err.Error(), "partition table") {
		t.Error(r, err)
	}
}

// packaged is a small disk in a format of builder/output.
func packaged(t testing.TB, format string) []byte {
	t.Helper()
	f, err := output.Find(format)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "node."+format)
	if err := f.Write(t.Context(), &output.Made{Disk: disktest.Disk(t, 1<<20).Name(), ID: "0123456789abcdef", Role: "worker"}, dst, false); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// opening is the disk of a file with that text, read a little.
func opening(t testing.TB, b []byte) error {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(b); err != nil {
		t.Fatal(err)
	}
	disk, err := open(t.Context(), file)
	if err != nil {
		return err
	}
	defer disk.close()
	return readAll(disk, disk.size)
}

// TestPackageDamage changes what is in an OVA and in a containerDisk.
func TestPackageDamage(t *testing.T) {
	for format, changes := range map[string]map[string]func(b []byte) []byte{
		"ova": {
			"node.ovf has sha256": func(b []byte) []byte {
				return bytes.Replace(b, []byte("A Kubernetes node"), []byte("B Kubernetes node"), 1)
			},
			"node-disk1.vmdk has sha256": func(b []byte) []byte { b[len(b)-4096]++; return b },
			"the manifest says \"\"":     func(b []byte) []byte { return bytes.Replace(b, []byte("SHA256("), []byte("SHA512("), 1) },
			"in this order":              func(b []byte) []byte { return b[:bytes.Index(b, []byte("node-disk1.vmdk\x00"))] },
		},
		"containerdisk": {
			"has sha256":              func(b []byte) []byte { b[1536+100]++; return b },
			"index.json is not there": func(b []byte) []byte { return b[:bytes.Index(b, []byte("index.json"))] },
			"invalid character": func(b []byte) []byte {
				return bytes.Replace(b, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index`), []byte(`["schemaVersion":2,"mediaType":"application/vnd.oci.image.index`), 1)
			},
			"blobs/sha512/": func(b []byte) []byte { at := bytes.LastIndex(b, []byte("sha256:")); copy(b[at:], "sha512"); return b },
		},
	} {
		good := packaged(t, format)
		if err := opening(t, good); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		for want, change := range changes {
			if err := opening(t, change(bytes.Clone(good))); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want one with %q", format, err, want)
			}
		}
	}
}

// TestGCEDamage: what is no image of Compute Engine is told so.
func TestGCEDamage(t *testing.T) {
	for want, entries := range map[string][]tar.Header{
		"disk.img of 1073741824 bytes": {{Name: "disk.img", Size: 1 << 30}},
		"disk.raw of 1048576 bytes":    {{Name: "disk.raw", Size: 1 << 20}},
		"lies behind disk.raw":         {{Name: "disk.raw"}, {Name: "more"}},
		"unexpected EOF":               {{Name: "disk.raw", Size: 1 << 30}},
	} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, h := range entries {
			h.Typeflag, h.Mode = tar.TypeReg, 0o644
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Flush()
		if len(entries) > 1 {
			_ = w.Close()
		}
		_ = z.Close()
		if err := opening(t, b.Bytes()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

// FuzzPackage gives whole small files, of what is a tar.
func FuzzPackage(f *testing.F) {
	f.Add(packaged(f, "ova"))
	f.Add(packaged(f, "containerdisk"))
	f.Fuzz(func(t *testing.T, b []byte) { _ = opening(t, b) })
}

// same holds the disk in a file against a raw one, and reads at the disk's edges.
func same(t *testing.T, raw *os.File, file, format string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	disk, err := open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.close()
	info, err := raw.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if disk.size != info.Size() || disk.format != format {
		t.Errorf("a %s of %d bytes, want a %s of %d", disk.format, disk.size, format, info.Size())
	}
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < info.Size(); at += 1 << 20 {
		_, err1 := raw.ReadAt(a, at)
		if err := readAt(disk, b, at); err1 != nil || err != nil || !bytes.Equal(a, b) {
			t.Fatalf("at %d: %v, %v, equal %v", at, err1, err, bytes.Equal(a, b))
		}
	}
	for _, at := range []int64{65_000, 1<<20 - 3, 5<<20 + 12_340} { // across pieces
		_, err1 := raw.ReadAt(a[:1000], at)
		if err := readAt(disk, b[:1000], at); err1 != nil || err != nil || !bytes.Equal(a[:1000], b[:1000]) {
			t.Errorf("1000 bytes at %d: %v, %v", at, err1, err)
		}
	}
	if n, err := disk.ReadAt(b[:10], info.Size()-4); n != 4 || err != io.EOF {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if n, err := disk.ReadAt(b[:10], info.Size()+4096); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
}

// readAll reads a disk of a few MiB to its end; what is wrong is an error, never a panic.
func readAll(r io.ReaderAt, size int64) error {
	b := make([]byte, 1<<20)
	for at := int64(0); at < min(size, 8<<20); at += 1 << 20 {
		if err := readAt(r, b[:min(1<<20, size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// small is a disk in a format.
func small(t testing.TB, size int64, options ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	disktest.Tool(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, options...), disktest.Disk(t, size).Name(), file)...)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ours is a small disk as we write it.
func ours(t testing.TB, write func(w io.Writer, disk *os.File, size int64) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b, disktest.Disk(t, 1<<20), 1<<20); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func ourVMDK(t testing.TB) []byte {
	return ours(t, func(w io.Writer, disk *os.File, size int64) error {
		return vmdkwriter.Write(t.Context(), w, disk, size, repro.UUID("test"))
	})
}

// refused wants each change of an image to be named by the error.
func refused(t *testing.T, good []byte, open func(f io.ReaderAt, size int64) (io.ReaderAt, int64, error), changes map[string]func(b []byte) []byte) {
	t.Helper()
	for want, change := range changes {
		b := change(bytes.Clone(good))
		disk, size, err := open(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = readAll(disk, size)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestVMDKDamage(t *testing.T) {
	const grain = 128 * sectorSize // the first
	refused(t, ourVMDK(t), openVMDK, map[string]func(b []byte) []byte{
		"streamOptimized":       func(b []byte) []byte { b[10] = 0; return b },
		"newlines":              func(b []byte) []byte { b[75] = '\n'; return b },
		"end with a footer":     func(b []byte) []byte { return b[:len(b)-512] },
		"reading the footer":    func(b []byte) []byte { return b[:1024] },
		"its header's":          func(b []byte) []byte { b[len(b)-1024+4]++; return b },
		"grains of 64 sectors":  func(b []byte) []byte { b[20], b[len(b)-1024+20] = 64, 64; return b },
		"a disk of":             func(b []byte) []byte { b[19], b[len(b)-1024+19] = 1, 1; return b },
		"reading the grain dir": func(b []byte) []byte { b[len(b)-1024+59] = 1; return b },
		"its marker is of":      func(b []byte) []byte { b[grain]++; return b },
		"grain 0: zlib":         func(b []byte) []byte { b[grain+12] ^= 0xff; return b },
		"does not inflate to": func(b []byte) []byte {
			copy(b[grain+8:], append([]byte{8, 0, 0, 0}, "\x78\x9c\x03\x00\x00\x00\x00\x01"...))
			return b
		},
	})
}

// ourVHDX is a disk of 1 MiB: the table is at 3 MiB, the block behind it.
func ourVHDX(t testing.TB) []byte {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := vhdxwriter.Write(t.Context(), f, disktest.Disk(t, 1<<20), 1<<20, repro.UUID("test")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fixed has the CRC-32C of the structure at that place entered anew.
func fixed(b []byte, at, size int) []byte {
	s := b[at : at+size]
	clear(s[4:8])
	binary.LittleEndian.PutUint32(s[4:], crc32.Checksum(s, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestVHDXDamage(t *testing.T) {
	const headers, regions, items, table = 64 << 10, 192 << 10, 2<<20 + 64<<10, 3 << 20
	second := func(b []byte) []byte { return fixed(b, headers+64<<10, 4<<10) }
	both := func(b []byte) []byte { return fixed(fixed(b, regions, 64<<10), regions+64<<10, 64<<10) }
	refused(t, ourVHDX(t), openVHDX, map[string]func(b []byte) []byte{
		"neither of its headers":  func(b []byte) []byte { b[headers+100]++; b[headers+64<<10+100]++; return b },
		"version 2":               func(b []byte) []byte { b[headers+64<<10+66] = 2; return second(b) },
		"log to replay":           func(b []byte) []byte { b[headers+64<<10+48] = 1; return second(b) },
		"neither of its region":   func(b []byte) []byte { b[regions+100]++; b[regions+64<<10+100]++; return b },
		"no block allocation":     func(b []byte) []byte { b[regions+16]++; b[regions+64<<10+16]++; return both(b) },
		"no metadata":             func(b []byte) []byte { b[2<<20]++; return b },
		"has 0 bytes, want":       func(b []byte) []byte { b[2<<20+32]++; return b },
		"in blocks of 524288":     func(b []byte) []byte { b[items+2] = 8; return b },
		"a parent":                func(b []byte) []byte { b[items+4] = 2; return b },
		"block 0 has the state 7": func(b []byte) []byte { b[table] = 7; return b },
		"EOF":                     func(b []byte) []byte { b[table+6] = 1; return b },
		"block 0 is not in": func(b []byte) []byte {
			b[regions+16+24+2], b[regions+64<<10+16+24+2] = 0, 0
			return both(b)
		},
	})
}

func FuzzVHDX(f *testing.F) {
	f.Add(ourVHDX(f))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if disk, size, err := openVHDX(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = readAll(disk, size)
		}
	})
}

func TestVHDDamage(t *testing.T) {
	refused(t, small(t, 1<<20, foreign["vhd"]...), openVHD, map[string]func(b []byte) []byte{
		"no fixed disk":     func(b []byte) []byte { b[1<<20+63] = 3; return b },
		"checksum is wrong": func(b []byte) []byte { b[1<<20+70]++; return b },
		"speaks of 1048576": func(b []byte) []byte { return b[512:] },
	})
}

func FuzzVHD(f *testing.F) {
	f.Add(small(f, 1<<20, foreign["vhd"]...)[1<<20-4096:])
	f.Fuzz(func(_ *testing.T, b []byte) {
		if disk, size, err := openVHD(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = readAll(disk, size)
		}
	})
}

func FuzzVMDK(f *testing.F) {
	f.Add(ourVMDK(f))
	f.Add(small(f, 1<<20, foreign["vmdk"]...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if disk, size, err := openVMDK(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = readAll(disk, size)
		}
	})
}
