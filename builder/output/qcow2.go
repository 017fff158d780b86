package output

import (
	"context"
	"fmt"
	"os"

	"github.com/imgbuild/imgbuild/internal/qcow2"
)

func writeQcow2(ctx context.Context, m *Made, dst string, compress bool) (err error) {
	src, err := os.Open(m.Disk) // #nosec G304 -- our own scratch file
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	info, err := src.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- an image holds no secret
	if err != nil {
		return err
	}
	if err := qcow2.Write(ctx, out, src, info.Size(), qcow2.Options{Compress: compress}); err != nil {
		return fmt.Errorf("writing qcow2: %w", closeAfter(out, err))
	}
	return out.Close()
}

func closeAfter(f *os.File, err error) error {
	if cerr := f.Close(); err == nil {
		return cerr
	}
	return err
}
