package assemble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	fat "github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// mediumRoom is what the EFI system partition of a medium has beyond its files, for credentials.
const mediumRoom = 4 * mib

// Medium writes the EFI system partition of an install medium into the scratch folder dir: that
// of the disk, but that its UKI looks for the root in the disk's image on the medium.
func Medium(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, s *Sealed, dir string) (file string, err error) {
	uki, err := unify(p, root, k, s.initrd, s.hash, medium.Word)
	if err != nil {
		return "", fmt.Errorf("assembling the install medium: %w", err)
	}
	files, err := bootFiles(root, p.Arch, "EFI/Linux/"+ukiName(p), uki)
	if err != nil {
		return "", fmt.Errorf("assembling the install medium: %w", err)
	}
	size := int64(mediumRoom)
	for _, c := range files {
		size += c.Size() + c.Size()/32 // the allocation tables take a sixty-fourth
	}
	file, size = filepath.Join(dir, "medium.esp"), max(align(size), fat.MinSize)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // #nosec G304 -- our own scratch file
	if err != nil {
		return "", err
	}
	err = f.Truncate(size)
	if err == nil {
		err = fat.Write(ctx, f, 0, size, files, espOptions("medium", p.ID))
	}
	return file, errors.Join(err, f.Close())
}
