package output

import (
	"context"
	"os"

	"github.com/imgbuild/imgbuild/internal/compress"
)

func writeRawZstd(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error { return compress.Zstd(ctx, out, disk, size) })
}

func writeRawGzip(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error { return compress.Gzip(ctx, out, disk, size) })
}
