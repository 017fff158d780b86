package serve

import "golang.org/x/sys/unix"

// bindTo lets a socket hear one interface alone.
func bindTo(fd int, device string) error { return unix.BindToDevice(fd, device) }
