package output

import (
	"context"
	"os"

	"github.com/imgbuild/imgbuild/internal/qcow2"
)

func writeQcow2(ctx context.Context, m *Made, dst string, compress bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		return qcow2.Write(ctx, out, disk, size, qcow2.Options{Compress: compress})
	})
}
