package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// Entry is one blob, with the keys of the work that gave it.
type Entry struct {
	Digest string    `json:"digest"`
	Size   int64     `json:"size"` // bytes
	Used   time.Time `json:"used"` // when it was last got or filed, to within [Noted]
	Keys   []string  `json:"keys"` // empty: fetched or filed by digest alone
}

// List returns every blob, the longest unused first.
func (s *Store) List() ([]Entry, error) {
	keys := map[string][]string{}
	err := s.eachAction(func(_, digest, key string) error {
		keys[digest] = append(keys[digest], key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(filepath.Join(s.dir, "blobs"))
	if err != nil {
		return nil, err
	}
	out := []Entry{}
	for _, f := range files {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(s.dir, "blobs", f.Name()), &st) != nil { // pruned by another process
			continue
		}
		e := Entry{Digest: prefix + f.Name(), Size: st.Size, Used: time.Unix(st.Atim.Unix()), Keys: keys[prefix+f.Name()]}
		slices.Sort(e.Keys)
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	return out, nil
}

// Verify reads every blob and returns those whose bytes are not what they are
// filed under; they are taken away.
func (s *Store) Verify(ctx context.Context) (sound int, damaged []Entry, err error) {
	entries, err := s.List()
	if err != nil {
		return 0, nil, err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return sound, damaged, ctx.Err()
		}
		switch _, err := s.check(e.Digest, false); {
		case errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrInvalid):
			damaged = append(damaged, e)
			if err := os.Remove(filepath.Join(s.dir, "blobs", strings.TrimPrefix(e.Digest, prefix))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return sound, damaged, err
			}
		case errors.Is(err, fs.ErrNotExist): // pruned by another process
		case err != nil:
			return sound, damaged, err
		default:
			sound++
		}
	}
	return sound, damaged, nil
}

// Prune takes away the blobs that nobody used since then, the records that lead to no
// blob, the notes that no longer hold and the locks that nobody holds. It returns the blobs.
func (s *Store) Prune(since time.Time) ([]Entry, error) {
	entries, err := s.List()
	if err != nil {
		return nil, err
	}
	gone := []Entry{}
	for _, e := range entries {
		if !e.Used.Before(since) {
			continue
		}
		if err := os.Remove(s.blob(e.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, err
		}
		gone = append(gone, e)
	}
	s.pruneNotes()
	s.pruneLocks()
	return gone, s.eachAction(func(file, digest, _ string) error {
		if _, err := os.Stat(s.blob(digest)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return os.Remove(file)
	})
}

// pruneLocks takes away what Lock left. A lock is taken before its file goes, and Lock
// looks whether the file is still there. Failing to is no error.
func (s *Store) pruneLocks() {
	files, _ := os.ReadDir(filepath.Join(s.dir, "locks"))
	for _, f := range files {
		l := flock.New(filepath.Join(s.dir, "locks", f.Name()))
		if mine, err := l.TryLock(); err == nil && mine {
			_ = os.Remove(l.Path())
			_ = l.Unlock()
		}
	}
}

// eachAction calls fn with every record's file, digest and key.
func (s *Store) eachAction(fn func(file, digest, key string) error) error {
	files, err := os.ReadDir(filepath.Join(s.dir, "actions"))
	if err != nil {
		return err
	}
	for _, f := range files {
		file := filepath.Join(s.dir, "actions", f.Name())
		text, err := os.ReadFile(file) // #nosec G304 -- below the store
		if err != nil {
			continue
		}
		digest, key, _ := strings.Cut(string(text), "\n")
		if err := fn(file, digest, strings.TrimSpace(key)); err != nil {
			return err
		}
	}
	return nil
}

// Touch counts as a use of the blob, if it is there, without a look at its bytes.
func (s *Store) Touch(digest string) {
	if checkDigest(digest) != nil {
		return
	}
	if info, err := os.Stat(s.blob(digest)); err == nil {
		s.touch(s.blob(digest), info)
	}
}

// Noted is how far apart two uses of a blob are when both are noted: [Entry].Used may be
// that much before the last one.
const Noted = time.Minute

// touch notes that a blob is used, in its access time, which the store alone sets, at most
// once in [Noted]: mount options such as noatime do not matter. Failing to is no error.
func (s *Store) touch(path string, info fs.FileInfo) {
	var st unix.Stat_t
	now := repro.Now()
	if unix.Stat(path, &st) == nil && now.Sub(time.Unix(st.Atim.Unix())).Abs() < Noted {
		return
	}
	known := s.Vouched(path, sound)
	if os.Chtimes(path, now, info.ModTime()) == nil && known {
		_ = s.Vouch(path, sound) // else it is read again
	}
}
