package verify

import (
	"bytes"
	"context"
	"debug/pe"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Netboot reads a unified kernel image that carries its root file system.
func Netboot(ctx context.Context, file string) (*Report, error) { return netboot(ctx, file, &Report{}) }

func netboot(ctx context.Context, file string, r *Report) (*Report, error) {
	f, err := os.Open(file) // #nosec G304 -- the image that the caller names
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r.Format, r.Size, r.Findings, r.UKI = "netboot", info.Size(), []Finding{}, filepath.Base(file)
	if err := guard(func() error { return r.readNetboot(ctx, f) }); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// isPE says whether a file begins as what UEFI starts.
func isPE(disk io.ReaderAt) bool {
	b := make([]byte, 2)
	_, err := disk.ReadAt(b, 0)
	return err == nil && string(b) == "MZ"
}

func (r *Report) readNetboot(ctx context.Context, f *os.File) error {
	if err := r.readUKI(f, r.Size); err != nil || r.RootHash == "" {
		return err
	}
	p, err := pe.NewFile(f)
	if err != nil {
		return err
	}
	s := p.Section(".initrd")
	if s == nil {
		return nil // said
	}
	initrd := io.NewSectionReader(f, int64(s.Offset), int64(min(s.Size, s.VirtualSize)))
	slot, err := archives(io.NewSectionReader(initrd, 0, netbootSlot))
	if err != nil {
		return fmt.Errorf("%s: the place for a machine's settings: %w", r.UKI, err)
	}
	for name := range slot {
		if strings.HasSuffix(name, ".cred") {
			r.say("hygiene", name, "it is stamped: a copy for one machine, and a secret")
		}
	}
	z, err := zstd.NewReader(io.NewSectionReader(initrd, netbootSlot, initrd.Size()-netbootSlot), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	packed, err := unpack(ctx, f, z, maxInitrd)
	if err != nil {
		return fmt.Errorf("%s: the initrd: %w", r.UKI, err)
	}
	defer packed.close()
	files, err := archives(io.NewSectionReader(packed, 0, packed.size))
	if err != nil {
		return fmt.Errorf("%s: the initrd: %w", r.UKI, err)
	}
	root, tree := files["imgbuild/root.erofs"], files["imgbuild/root.verity"]
	if root == nil || tree == nil {
		r.say("boot", r.UKI, "its initrd carries no root file system with its hash tree: it boots from a disk alone")
		return nil
	}
	return r.readSealed(ctx, root, tree, root)
}

// netbootSlot is the size of the place for one machine's settings, with which the initrd
// begins; maxInitrd is what it may become in memory. Both in bytes.
const netbootSlot, maxInitrd = 256 << 10, 8 << 30

// archives are the files of the cpio archives (newc), one after the other, with zeros
// between and behind them.
func archives(src *io.SectionReader) (map[string]*io.SectionReader, error) {
	out := map[string]*io.SectionReader{}
	b := make([]byte, 4096)
	for at := int64(0); at < src.Size(); {
		b = b[:min(int64(len(b)), src.Size()-at)]
		if err := readAt(src, b, at); err != nil {
			return nil, err
		}
		if rest := bytes.TrimLeft(b, "\x00"); len(rest) < len(b) {
			at += int64(len(b) - len(rest))
			continue
		}
		var err error
		if at, err = archive(src, at, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// archive reads one archive's headers, and returns where it ends.
func archive(src *io.SectionReader, at int64, out map[string]*io.SectionReader) (end int64, err error) {
	const header, sizeAt, nameAt = 110, 54, 94
	for {
		h := make([]byte, header)
		if err := readAt(src, h, at); err != nil {
			return 0, err
		}
		size, err1 := strconv.ParseInt(string(h[sizeAt:sizeAt+8]), 16, 64)
		length, err2 := strconv.ParseInt(string(h[nameAt:nameAt+8]), 16, 64)
		if err1 != nil || err2 != nil || !bytes.HasPrefix(h, []byte("070701")) || length < 2 || length > 4096 {
			return 0, fmt.Errorf("no header of an archive at %d", at)
		}
		text := make([]byte, length)
		if err := readAt(src, text, at+header); err != nil {
			return 0, err
		}
		data := (at + header + length + 3) / 4 * 4
		if size > src.Size()-data {
			return 0, fmt.Errorf("a file of %d bytes at %d is not in it", size, at)
		}
		at = (data + size + 3) / 4 * 4
		name := string(bytes.TrimRight(text, "\x00"))
		if name == "TRAILER!!!" {
			return at, nil
		}
		if out[name] != nil {
			return 0, fmt.Errorf("%q is there twice", name)
		}
		out[name] = io.NewSectionReader(src, data, size)
	}
}
