//go:build linux

// Package locked builds images where next to nothing is allowed (package main in cell), and
// holds them against those of an ordinary build. It needs root to make such a place.
package locked

import (
	"bufio"
	order "cmp"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

var update = flag.Bool("update", false, "write the page anew")

const (
	page   = "../../docs/locked-host.md"
	nobody = 65534
)

// builds are what is built, in this order. One is traced, for which it takes twice as long.
var builds = []struct {
	role, formats string
	traced        bool
}{
	{"worker", "raw,qcow2,sysext", true},
	{"master", "raw", false},
}

// cell is a root for one program, and the tools that are run.
type cell struct {
	kit.Kit
	root string
}

// newCell compiles the tools, and lays into a cell's root what an installed imgbuild has.
func newCell(t *testing.T) cell {
	t.Helper()
	if testing.Short() {
		t.Skip("builds images: left out by -short")
	}
	if os.Getuid() != 0 {
		t.Skip("only root can make a place where nothing is allowed")
	}
	dir := t.TempDir()
	c := cell{kit.Kit{Bin: filepath.Join(dir, "tools"), Dir: dir, Said: io.Discard}, filepath.Join(dir, "cell")}
	kit.Must(t, c.BuildTools(t.Context(), "../.."))
	kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "go", Args: []string{"build", "-o", filepath.Join(c.Bin, "cell"), "./cell"}, Env: []string{"CGO_ENABLED=0"}}))
	for _, name := range []string{"bin", "here", "cache", "out", "tmp"} {
		kit.Must(t, os.MkdirAll(filepath.Join(c.root, name), 0o755))
	}
	for name, mode := range map[string]fs.FileMode{"cell": 0o755, "imgbuild": 0o755, "imgbuild-initrd-amd64": 0o644, "imgbuild-firstboot-amd64": 0o644} {
		data, err := os.ReadFile(filepath.Join(c.Bin, name))
		kit.Must(t, err)
		kit.Must(t, os.WriteFile(filepath.Join(c.root, "bin", name), data, mode))
	}
	return c
}

// run runs a program in the cell, under those before it.
func (c cell) run(t *testing.T, under []string, argv ...string) (string, error) {
	t.Helper()
	args := slices.Concat(under, []string{filepath.Join(c.Bin, "cell"), "run", c.root}, argv)
	out, err := run.Output(t.Context(), run.Cmd{Name: args[0], Args: args[1:]})
	return string(out), err
}

// outside runs cell itself where it may do as it likes.
func (c cell) outside(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: filepath.Join(c.Bin, "cell"), Args: args})
	kit.Must(t, err)
	return strings.TrimSpace(string(out))
}

func TestLocked(t *testing.T) {
	c := newCell(t)
	t.Run("the programs are static", c.static)
	t.Run("the cell refuses", c.refuses)
	t.Run("the builds", c.builds)
}

// refuses asks for what a cell refuses: there it kills, and elsewhere it does not.
func (c cell) refuses(t *testing.T) {
	got, err := c.run(t, nil, "/bin/cell", "look")
	kit.Must(t, err)
	const want = `user 65534, group 65534, other groups 0, capabilities 0, no new privileges 1
root: bin cache here out tmp
a file in the working directory: open file: read-only file system
/tmp on the outputs' file system: false
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, name := range []string{"mount", "umount", "fsopen", "open_tree", "pivot_root", "chroot", "unshare a user", "unshare the host's name", "setns", "clone",
		"setuid", "setresuid", "mknod", "ptrace", "socket of IPv4", "socket of IPv6", "socket of this host", "execve", "execveat"} {
		c.outside(t, "try", name)
		out, err := c.run(t, nil, "/bin/cell", "try", name)
		var ended *exec.ExitError
		if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
			t.Errorf("%s: %q, %v, want SIGSYS", name, out, err)
		}
	}
	if out, err := c.run(t, nil, "/bin/cell", "try", "clone3"); err != nil || strings.TrimSpace(out) != unix.ENOSYS.Error() {
		t.Errorf("clone3: %q, %v, want %q", out, err, unix.ENOSYS)
	}
	if out, err := c.run(t, nil, "/bin/imgbuild-initrd-amd64"); err == nil {
		t.Errorf("a program of the node's is run: %s", out)
	}
}

// static wants no interpreter and no library in the programs.
func (c cell) static(t *testing.T) {
	for _, name := range []string{"imgbuild", "imgbuild-initrd-amd64", "imgbuild-firstboot-amd64"} {
		f, err := elf.Open(filepath.Join(c.Bin, name))
		kit.Must(t, err)
		libraries, _ := f.ImportedLibraries() // without a dynamic section an error or none
		if len(libraries) > 0 || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s is not static: %v", name, libraries)
		}
		kit.Must(t, f.Close())
	}
}

// builds builds in a cell from a warm store, offline, and wants the ordinary build's bytes.
func (c cell) builds(t *testing.T) {
	start, lock := time.Now(), filepath.Join(c.root, "here", "imgbuild.lock")
	for _, b := range builds {
		_, err := c.Imgbuild(t.Context(), b.role, "-o", filepath.Join(c.Dir, b.role), "--format", b.formats, "--lock", lock)
		kit.Must(t, err)
	}
	kit.Must(t, os.Chmod(lock, 0o444))
	c.warm(t, start)
	trace := ""
	for _, b := range builds {
		var under []string
		if _, err := run.Look("strace"); err == nil && b.traced {
			trace = filepath.Join(c.Dir, b.role+".trace")
			under = []string{"strace", "-f", "-qq", "-e", "signal=none", "-o", trace}
		}
		_, err := c.run(t, under, "/bin/imgbuild", b.role, "-o", "/out/"+b.role, "--format", b.formats, "--lock", "/here/imgbuild.lock", "--cache", "/cache", "--offline")
		kit.Must(t, err)
		if d := cmp.Diff(digests(t, filepath.Join(c.Dir, b.role)), digests(t, filepath.Join(c.root, "out", b.role))); d != "" {
			t.Errorf("%s: the ordinary build's files (-) differ from the cell's (+):\n%s", b.role, d)
		}
	}
	if trace == "" {
		t.Skip("strace is not there: the system calls were not looked at")
	}
	refused := strings.Fields(c.outside(t, "refused"))
	counts := count(t, trace, refused)
	if *update && !t.Failed() {
		kit.Must(t, os.WriteFile(page, []byte(text(refused, counts)), 0o644))
	}
	have, err := os.ReadFile(page)
	kit.Must(t, err)
	if !strings.Contains(string(have), list(refused)) {
		t.Errorf("%s lists other calls than those that kill: go test ./test/locked -update", page)
	}
}

// warm gives the cell a store with what was used since then, as nobody's own.
func (c cell) warm(t *testing.T, since time.Time) {
	t.Helper()
	kit.Must(t, kit.Warm(t.Context(), filepath.Join(c.root, "cache"), since))
	for _, name := range []string{"cache", "out"} {
		kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "chown", Args: []string{"-R", fmt.Sprintf("%d:%d", nobody, nobody), filepath.Join(c.root, name)}}))
	}
}

// digests are those of the files in a folder, by name.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	kit.Must(t, err)
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		kit.Must(t, err)
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		kit.Must(t, errors.Join(err, f.Close()))
		out[e.Name()] = fmt.Sprintf("%x", sum.Sum(nil))
	}
	return out
}

// call is the beginning of a system call in what strace -f writes.
var call = regexp.MustCompile(`^\d+ +([a-z0-9_]+)\((.*)`)

// count is how often imgbuild made each system call; none may be one that is refused.
func count(t *testing.T, trace string, refused []string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	f, err := os.Open(trace)
	kit.Must(t, err)
	defer f.Close()
	started := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		found := call.FindStringSubmatch(lines.Text())
		if found == nil {
			continue // how an earlier one ended
		}
		name, args := found[1], found[2]
		if !started {
			started = name == "execve" && strings.HasPrefix(args, `"/bin/imgbuild"`)
			continue
		}
		counts[name]++
		if slices.Contains(refused, name) && (name != "clone" || strings.Contains(args, "CLONE_NEW")) {
			t.Errorf("imgbuild asked for %s", lines.Text())
		}
	}
	kit.Must(t, lines.Err())
	if !started || len(counts) == 0 {
		t.Errorf("%s does not show how imgbuild was started", trace)
	}
	return counts
}

// list is the calls that kill, as the page shows them.
func list(refused []string) string { return "`" + strings.Join(refused, "`, `") + "`" }

func text(refused []string, counts map[string]int) string {
	total := 0
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return order.Or(counts[b]-counts[a], order.Compare(a, b)) })
	for _, n := range counts {
		total += n
	}
	var built, kinds []string
	for _, b := range builds {
		built = append(built, "a "+b.role+" as `"+b.formats+"`")
	}
	for _, name := range names {
		kinds = append(kinds, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return `# Nothing needed on the host

` + "`go test ./test/locked -update`" + ` wrote this. It builds ` + strings.Join(built, " and ") + ` with ` + "`--offline`" + ` from a warm store, and
compares every file with that of an ordinary build: the same bytes.

The build runs as user 65534 without other groups or capabilities, with no_new_privs, in a root that holds the static
program, the two programs that it puts on nodes, the store, the outputs and a TMPDIR on another file system. There is no
/proc, /sys or /dev, no shell or other program, PATH is empty, the working directory with the lock is read-only, and the
network has no interface that is up. A seccomp filter kills the build if it calls one of these (clone only for a name
space, execve for every program but the first):

` + list(refused) + `

A helper that does is killed, which the test shows for each kind. strace counted ` + fmt.Sprint(total) + ` system calls of the worker's build, none of them one of those:

` + strings.Join(kinds, ", ") + `
`
}
