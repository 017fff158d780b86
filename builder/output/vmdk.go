package output

import (
	"context"
	"os"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vmdk"
)

func writeVMDK(ctx context.Context, m *Made, dst string, _ bool) error {
	return m.convert(dst, func(out, disk *os.File, size int64) error {
		return vmdk.Write(ctx, out, disk, size, repro.UUID(m.ID, "vmdk"))
	})
}
