package output

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgbuild/imgbuild/internal/compress"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// What a GPT takes at the two ends of a disk (UEFI specification, section 5.3): the protective
// MBR, a header and 128 entries; the entries again, and the header.
const tableFirst, tableLast = 34 * 512, 33 * 512

// writeGCE writes what Compute Engine imports: disk.raw, of whole GiB, alone in a tar of GNU's old
// format, gzipped. The disk grows for that, and its table with it: a backup that does not lie
// at the end is what the kernel and sgdisk complain of. The file in the tar has no holes, which any tar
// then unpacks; zeros deflate to a thousandth.
func writeGCE(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		whole := (size + 1<<30 - 1) >> 30 << 30
		var head bytes.Buffer
		h := header("disk.raw", whole)
		h.Format = tar.FormatGNU
		if err := tar.NewWriter(&head).WriteHeader(&h); err != nil {
			return err
		}
		ends, err := extended(disk, dst+".gpt", whole)
		if err != nil {
			return fmt.Errorf("writing gce: %w", err)
		}
		defer ends.Close() //nolint:errcheck // scratch
		src := sparse.Joined{part(head.Bytes()),
			{Src: ends, Size: tableFirst},
			{Src: disk, At: tableFirst, Size: size - tableFirst - tableLast},
			{Size: whole - size},
			{Src: ends, At: whole - tableLast, Size: tableLast},
			part(ending(whole))}
		return compress.Gzip(ctx, out, src, src.Size())
	})
}

// extended is a file without a name that has a disk's partition table, as a disk of that size has it, and
// else nothing.
func extended(disk *os.File, scratch string, size int64) (*os.File, error) {
	info, err := disk.Stat()
	if err != nil {
		return nil, err
	}
	table, err := gpt.Read(io.NewSectionReader(disk, 0, info.Size()))
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(scratch, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // #nosec G304 -- beside the output
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.Remove(scratch), f.Truncate(size))
	if err == nil {
		err = gpt.Write(f, table)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
