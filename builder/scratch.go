package builder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/pagecache"
)

// scratch is a folder that everything grows in, on the outputs' file system. It is
// locked (flock(2)) for as long as its build lives, so that a build can tell the
// folders of the dead from those of its neighbours, and take them away.
type scratch struct {
	path string
	lock *os.File
}

const scratchPattern = ".imgbuild-*"

// makeScratch makes the folder out where it is missing, takes away in it what
// killed builds have left, and makes a scratch folder.
func makeScratch(out string) (*scratch, error) {
	if err := needFolder(out); err != nil {
		return nil, err
	}
	door, err := lockFolder(out, unix.LOCK_EX) // one at a time: a folder is locked before it is seen
	if err != nil {
		return nil, err
	}
	defer door.Close() //nolint:errcheck // gives the lock back
	left, err := filepath.Glob(filepath.Join(out, scratchPattern))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		if lock, err := lockFolder(dir, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_ = os.RemoveAll(dir) // the next build tries again
			_ = lock.Close()
		}
	}
	dir, err := os.MkdirTemp(out, scratchPattern)
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(dir, unix.LOCK_EX)
	return &scratch{dir, lock}, err
}

// needFolder makes the folder of the outputs, or of the lock, where it is missing; it says so
// when nothing can be written there.
func needFolder(dir string) error {
	err := os.MkdirAll(dir, 0o755) // #nosec G301 -- the user's output folder
	if err == nil {
		err = unix.Access(dir, unix.W_OK|unix.X_OK)
	}
	if err == nil {
		return nil
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		dir, err = at.Path, at.Err
	}
	return fault.New(fault.Usage, "nothing can be written in the folder %s: %w; choose another one (-o, --lock)", dir, err)
}

// remove takes the folder away; what matters was renamed out of it.
func (s *scratch) remove() {
	_ = os.RemoveAll(s.path) // the next build tries again
	_ = s.lock.Close()
}

func lockFolder(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir) // #nosec G304 -- the user's output folder, or our own below it
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil { // #nosec G115 -- a descriptor is small
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// release takes an earlier build's outputs out of the page cache, so that the new
// ones, which take their place, take their memory, too. Memory that was never
// touched costs a virtual machine more than all the copying.
func release(o Options, p *plan.Plan) {
	for _, out := range p.Outputs {
		if f, err := os.Open(filepath.Join(o.Out, out.File)); err == nil {
			_ = pagecache.Drop(f)
			_ = f.Close()
		}
	}
}
