// Package pagecache takes files out of the kernel's cache.
package pagecache

import (
	"os"

	"golang.org/x/sys/unix"
)

// Drop forgets what is cached of a file and is on its disk already: the next read comes
// from there, and the memory is free. It does nothing where the system has no such call.
func Drop(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // #nosec G115 -- a descriptor is small
}
