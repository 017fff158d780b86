package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/internal/whole"
)

// Remember keeps a short text under a key, in the place of the one before. Prune leaves it
// alone: it is no work that could be done again.
func (s *Store) Remember(key, text string) error {
	return whole.WriteFile(s.remembered(key), []byte(text), 0o644)
}

// Recall returns what was remembered under the key; empty where nothing was.
func (s *Store) Recall(key string) (string, error) {
	text, err := os.ReadFile(s.remembered(key))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

func (s *Store) remembered(key string) string { return filepath.Join(s.dir, "memory", nameOf(key)) }
