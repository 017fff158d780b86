package output

import (
	"context"
	"os"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vhdx"
)

func writeVHDX(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		return vhdx.Write(ctx, out, disk, size, repro.UUID(m.ID, "vhdx"))
	})
}
