//go:build linux

// Command cell runs one program where next to nothing is allowed: by an ordinary user without
// a capability, in a root that holds that program and the folders that it is given, without
// /proc, /dev and network, behind a filter that kills whoever asks the kernel for more.
//
//	cell run ROOT PROGRAM ARG...   as root; ROOT has bin, here (where it is run), cache, out and tmp
//	cell try NAME                  asks for one of the things that are refused
//	cell look                      tells what a program in a cell sees
//	cell refused                   lists the system calls that kill
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// nobody is the user.
const nobody = 65534

func main() {
	runtime.LockOSThread() // name spaces, users and filters are a thread's
	if err := command(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cell:", err)
		os.Exit(1)
	}
}

func command(args []string, out io.Writer) error {
	switch {
	case len(args) > 2 && args[0] == "run":
		return enter(args[1], args[2:])
	case len(args) == 2 && args[0] == "try":
		try, ok := tries[args[1]]
		if !ok {
			return fmt.Errorf("no try is called %q", args[1])
		}
		_, err := fmt.Fprintln(out, try())
		return err
	case len(args) == 1 && args[0] == "look":
		return look(out)
	case len(args) == 1 && args[0] == "refused":
		_, err := fmt.Fprintln(out, strings.Join(refused, " "))
		return err
	}
	return fmt.Errorf("%q: want run, try, look or refused", args)
}

// enter becomes the program, in its cell. It returns only with an error.
func enter(root string, argv []string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("name spaces: %w", err)
	}
	const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{root, root, "", unix.MS_BIND},
		{root + "/cache", root + "/cache", "", unix.MS_BIND},
		{"", root + "/cache", "", unix.MS_REMOUNT | unix.MS_BIND | inert},
		{root + "/out", root + "/out", "", unix.MS_BIND},
		{"", root + "/out", "", unix.MS_REMOUNT | unix.MS_BIND | inert},
		{"tmpfs", root + "/tmp", "tmpfs", inert},
		{"", root, "", unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := unix.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.to, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := unix.Chdir("/here"); err != nil {
		return err
	}
	for c := uintptr(0); unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) == nil; c++ { // until there is no such capability
	}
	if err := unix.Setgroups(nil); err != nil {
		return err
	}
	if err := unix.Setresgid(nobody, nobody, nobody); err != nil {
		return err
	}
	if err := unix.Setresuid(nobody, nobody, nobody); err != nil {
		return err
	}
	return become(argv, []string{"PATH=", "TMPDIR=/tmp"})
}

// look tells who and where a program is.
func look(out io.Writer) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	capabilities := [2]unix.CapUserData{}
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &capabilities[0]); err != nil {
		return err
	}
	held := capabilities[0].Effective | capabilities[0].Permitted | capabilities[0].Inheritable |
		capabilities[1].Effective | capabilities[1].Permitted | capabilities[1].Inheritable
	noNew, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return err
	}
	var names []string
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	var tmp, there unix.Stat_t
	if err := unix.Stat("/tmp", &tmp); err != nil {
		return err
	}
	if err := unix.Stat("/out", &there); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "user %d, group %d, other groups %d, capabilities %x, no new privileges %d\nroot: %s\na file in the working directory: %v\n/tmp on the outputs' file system: %v\n",
		os.Getuid(), os.Getgid(), len(groups), held, noNew, strings.Join(names, " "), os.WriteFile("file", nil, 0o600), tmp.Dev == there.Dev)
	return err
}

// filter kills for what is refused. Of processes it lets threads be made, and the file that lies
// at the gate be run; clone3(2) hides its flags from a filter, and is said not to be there.
func filter() seccomp.Filter {
	var names []string
	if runtime.GOARCH == "amd64" { // its older names
		names = append(names, "mknod", "fork", "vfork")
	}
	for _, name := range refused {
		if name != "clone" && name != "execve" {
			names = append(names, name)
		}
	}
	conditions := []seccomp.NameWithConditions{{Name: "execve", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.NotEqual, Value: gate}}}}
	for _, space := range []uint64{unix.CLONE_NEWNS, unix.CLONE_NEWCGROUP, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET} {
		conditions = append(conditions, seccomp.NameWithConditions{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: space}}})
	}
	return seccomp.Filter{NoNewPrivs: true, Policy: seccomp.Policy{DefaultAction: seccomp.ActionAllow, Syscalls: []seccomp.SyscallGroup{
		{Names: names, NamesWithCondtions: conditions, Action: seccomp.ActionKillProcess},
		{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
	}}}
}
