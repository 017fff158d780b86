package firstboot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncFS writes everything of the file system that holds dir to its disk; kubeadm
// itself syncs nothing.
func syncFS(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- a folder of the node's state
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close()) // #nosec G115 -- a file descriptor fits
}

// syncFlag is FS_SYNC_FL, of ioctl_iflags(2).
const syncFlag = 8

// writeThrough has each write to a file that is made in dir from now on wait until it is
// on the disk, where the file system can: ext4 and XFS can, and others are left as they are.
func writeThrough(dir string) error {
	d, err := os.Open(dir) // #nosec G304 -- a folder of the node's state
	if err != nil {
		return err
	}
	defer d.Close()   //nolint:errcheck // read only
	fd := int(d.Fd()) // #nosec G115 -- a file descriptor fits
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags|syncFlag))
	}
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return nil
	case err != nil:
		return fmt.Errorf("having %s written through: %w", dir, err)
	}
	return nil
}
