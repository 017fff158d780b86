package output

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/iso9660"
	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// readme is what one finds who looks into a medium.
const readme = `This medium boots by UEFI and writes DISK.RAW, which is a Kubernetes node, to
a disk. It writes none before it was told which:

  imgbuild stamp NODE.iso -o COPY.iso --config NODE.yaml --disk DISK
`

// writeISO writes an install medium, for a CD and, byte for byte, for a stick: an ISO 9660 volume and
// a GPT, which both know the EFI system partition that boots, and the disk as it is installed.
func writeISO(ctx context.Context, m *Made, dst string, _ bool) error {
	return reading(m.Medium, func(boot *os.File, bootSize int64) error {
		return m.convert(dst, func(out, disk *os.File, diskSize int64) error {
			bootAt := int64(iso9660.Room)
			diskAt := bootAt + bootSize
			size := diskAt + diskSize + gpt.Overhead
			table := gpt.Table{GUID: repro.UUID("medium", m.ID).String(), Partitions: []gpt.Partition{
				{Name: "imgbuild-medium", TypeGUID: gpt.TypeESP, GUID: repro.UUID("medium esp", m.ID).String(), Start: bootAt, Size: bootSize},
				{Name: medium.Partition, TypeGUID: medium.TypeImage, GUID: repro.UUID("medium image", m.ID).String(), Start: diskAt, Size: diskSize, Attrs: gpt.AttrReadOnly | gpt.AttrNoAuto},
			}}
			err := errors.Join(out.Truncate(size), gpt.Write(out, table))
			if err == nil {
				err = iso9660.Frame(out, "IMGBUILD_"+strings.ToUpper(m.Role), size,
					iso9660.File{Name: "EFI.IMG", At: bootAt, Size: bootSize},
					iso9660.File{Name: "README.TXT", Data: []byte(strings.ReplaceAll(readme, "\n", "\r\n"))},
					iso9660.File{Name: "DISK.RAW", At: diskAt, Size: diskSize})
			}
			if err != nil {
				return fmt.Errorf("writing iso: %w", err)
			}
			return errors.Join(sparse.CopyTo(ctx, out, bootAt, boot, bootSize), sparse.CopyTo(ctx, out, diskAt, disk, diskSize))
		})
	})
}
