package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// note is what Vouch keeps of a file outside the store.
type note struct {
	Path, Key               string
	Dev, Ino                uint64
	Size, Modified, Changed int64 // bytes; nanoseconds since 1970
}

// Vouch remembers that the file at path is, as it lies there now, what key names.
func (s *Store) Vouch(path, key string) error {
	n, err := look(path, key)
	if err != nil {
		return err
	}
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "note-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("noting %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), s.noted(n.Path))
}

// Vouched says whether nobody has touched the file since Vouch was told the same
// of it. The change time, which no program can set, tells.
func (s *Store) Vouched(path, key string) bool {
	now, err := look(path, key)
	if err != nil {
		return false
	}
	text, err := os.ReadFile(s.noted(now.Path))
	var was note
	return err == nil && json.Unmarshal(text, &was) == nil && was == now
}

// pruneNotes takes away the notes of files that are gone or were touched. Failing to is no error.
func (s *Store) pruneNotes() {
	files, _ := os.ReadDir(filepath.Join(s.dir, "notes"))
	for _, f := range files {
		file := filepath.Join(s.dir, "notes", f.Name())
		text, err := os.ReadFile(file) // #nosec G304 -- below the store
		var was note
		if err == nil && (json.Unmarshal(text, &was) != nil || !s.Vouched(was.Path, was.Key)) {
			_ = os.Remove(file)
		}
	}
}

func (s *Store) noted(path string) string { return filepath.Join(s.dir, "notes", nameOf(path)) }

func look(path, key string) (note, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return note{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return note{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return note{path, key, uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil // #nosec G115 -- a number of 32 bits on macOS
}
