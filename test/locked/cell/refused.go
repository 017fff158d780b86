//go:build linux

package main

import (
	"fmt"
	"syscall"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// refused are the system calls that kill: clone(2) where it asks for a name space, execve(2)
// but for the first.
var refused = []string{
	"mount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr", "pivot_root", "chroot",
	"unshare", "setns", "clone",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset",
	"mknodat", "swapon", "init_module", "finit_module", "bpf", "keyctl", "add_key", "request_key", "io_uring_setup",
	"ptrace", "process_vm_readv", "process_vm_writev",
	"socket", "socketpair", "connect", "bind",
	"execve", "execveat",
}

// tries ask for what is refused, in ways that do nothing where they are allowed.
var tries = map[string]func() unix.Errno{
	"mount":                   call(unix.SYS_MOUNT, 0, nowhere, 0),
	"umount":                  call(unix.SYS_UMOUNT2, nowhere),
	"fsopen":                  call(unix.SYS_FSOPEN, nowhere),
	"open_tree":               call(unix.SYS_OPEN_TREE, ^uintptr(0), nowhere),
	"pivot_root":              call(unix.SYS_PIVOT_ROOT, nowhere, nowhere),
	"chroot":                  call(unix.SYS_CHROOT, nowhere),
	"unshare a user":          call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER), // not for a program with threads
	"unshare the host's name": call(unix.SYS_UNSHARE, unix.CLONE_NEWUTS),
	"setns":                   call(unix.SYS_SETNS, ^uintptr(0)),
	"clone":                   call(unix.SYS_CLONE, unix.CLONE_NEWNS|unix.CLONE_FS), // contradicts itself
	"setuid":                  call(unix.SYS_SETUID, ^uintptr(0)),
	"setresuid":               call(unix.SYS_SETRESUID, ^uintptr(0), ^uintptr(0), ^uintptr(0)),
	"mknod":                   call(unix.SYS_MKNODAT, ^uintptr(0), nowhere, unix.S_IFBLK),
	"ptrace":                  call(unix.SYS_PTRACE, ^uintptr(0)),
	"socket of IPv4":          call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM),
	"socket of IPv6":          call(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM),
	"socket of this host":     call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM),
	"execve":                  call(unix.SYS_EXECVE, nowhere),
	"execveat":                call(unix.SYS_EXECVEAT, ^uintptr(0), nowhere),
	"clone3":                  call(unix.SYS_CLONE3, 0, 0),
}

// nowhere is the address of no file's name.
const nowhere = 1

func call(number uintptr, args ...uintptr) func() unix.Errno {
	return func() unix.Errno {
		var a [5]uintptr
		copy(a[:], args)
		_, _, errno := unix.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], 0)
		return errno
	}
}

// gate is the address at which the name of the program lies as it is started. With the start
// nothing lies there any more, so that a filter can tell the first execve(2) from all others.
const gate = 0xce110000000

// become loads the filter and starts the program.
func become(argv, env []string) error {
	at, err := unix.MmapPtr(-1, 0, unsafe.Add(nil, gate), uintptr(len(argv[0])+1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE)
	if err != nil {
		return fmt.Errorf("memory at %#x: %w", gate, err)
	}
	copy(unsafe.Slice((*byte)(at), len(argv[0])), argv[0]) // #nosec G103 -- as long as was asked for
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	vars, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	if err := seccomp.LoadFilter(filter()); err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, gate, uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&vars[0]))) // #nosec G103 -- as syscall.Exec does
	return fmt.Errorf("starting %s: %w", argv[0], errno)
}
