// Package whole writes the files that a user names: each appears whole, by rename, or
// not at all.
package whole

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// Target is where the file of that name lies: a symbolic link is followed, and stays. What
// is there and is no regular file, a device, pipe, socket or folder, is not replaced: an
// error of the kind fault.Usage.
func Target(name string) (string, error) {
	to, err := filepath.EvalSymlinks(name)
	if errors.Is(err, fs.ErrNotExist) {
		if info, lerr := os.Lstat(name); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return "", fault.New(fault.Usage, "%s is a link to a file that is not there: name that file", name)
		}
		return name, nil
	}
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(to)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fault.New(fault.Usage, "%s is no regular file, and is not replaced: name another file", name)
	}
	return to, nil
}

// Write makes the file of that name of what write gives, and its mode perm, whatever the
// umask and whatever it was.
func Write(name string, perm fs.FileMode, write func(io.Writer) error) error {
	to, err := Target(name)
	if err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(to, renameio.WithStaticPermissions(perm))
	if err != nil {
		return err
	}
	defer f.Cleanup() //nolint:errcheck // nothing is left where it was replaced
	if err := write(f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// WriteFile is Write for data that is at hand.
func WriteFile(name string, data []byte, perm fs.FileMode) error {
	return Write(name, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
