package firstboot

import (
	"errors"
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
