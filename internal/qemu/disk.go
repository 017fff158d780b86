package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/imgbuild/imgbuild/internal/run"
)

// What lies in a machine's folder.
const (
	overlayFile = "disk.qcow2"
	baseFile    = "disk.base" // which image the overlay was made over
	varsFile    = "vars.fd"
)

// prepareDisk makes the overlay and the firmware's variables, unless an earlier
// start did.
func prepareDisk(ctx context.Context, o Options, f firmware) error {
	if vars := filepath.Join(o.Dir, varsFile); !exists(vars) {
		data, err := os.ReadFile(f.vars)
		if err != nil {
			return err
		}
		if err := os.WriteFile(vars, data, 0o600); err != nil {
			return err
		}
	}
	if o.Disk == "" {
		return nil
	}
	if o.WriteLog != "" {
		if err := os.WriteFile(o.WriteLog, nil, 0o600); err != nil {
			return err
		}
	}
	return prepareOverlay(ctx, o)
}

// prepareOverlay makes the overlay. An image that has changed since would read as
// garbage through an old one, so that is refused.
func prepareOverlay(ctx context.Context, o Options) error {
	disk, err := filepath.Abs(o.Disk)
	if err != nil {
		return err
	}
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	base := fmt.Sprintf("%s\n%d\n%d\n", disk, info.Size(), info.ModTime().UnixNano())
	overlay, note := filepath.Join(o.Dir, overlayFile), filepath.Join(o.Dir, baseFile)
	if exists(overlay) {
		if was, err := os.ReadFile(note); err == nil && string(was) != base { // #nosec G304 -- in the machine's own folder
			return fmt.Errorf("%s belongs to another image, or %s has changed since: remove the folder %s", overlay, o.Disk, o.Dir)
		}
		return nil
	}
	args := []string{"create", "-q", "-f", "qcow2", "-F", o.Format, "-b", disk, overlay}
	if o.DiskSize > 0 {
		args = append(args, strconv.FormatInt(o.DiskSize, 10))
	}
	if err := run.Run(ctx, run.Cmd{Name: "qemu-img", Args: args}); err != nil {
		return err
	}
	return os.WriteFile(note, []byte(base), 0o600)
}
