package serve

import (
	"net"

	"golang.org/x/sys/unix"
)

// bindTo lets a socket hear one interface alone.
func bindTo(fd int, device string) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BOUND_IF, i.Index)
}
