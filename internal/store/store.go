// Package store is a content-addressed cache on disk: blobs by their SHA-256
// digest, and an action cache that remembers which blob a piece of work (named
// by a key) gave. Many processes may use one store side by side: blobs appear
// whole under their final name or not at all, and a lock per key lets only one
// process do a piece of work.
//
// It is not a download tool, knows nothing of what the blobs are, and deletes a
// sound blob only when told to (Prune).
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// ErrDamaged says that a blob's bytes no longer have the digest they are filed
// under. The blob is taken away, so that the next try fetches it anew.
var ErrDamaged = errors.New("damaged")

const (
	prefix   = "sha256:"
	lockWait = 100 * time.Millisecond
	staleTmp = 24 * time.Hour // a temporary file this old was left by a process that died
)

// Store is a cache in one folder. It is safe for concurrent use.
type Store struct {
	dir string
	mu  sync.Mutex
	// seen spares a second hash of a blob in the same process while its file is untouched.
	seen map[string]stamp
	// trusted are blobs that were given out because an earlier process read them.
	trusted []string
}

type stamp struct {
	size int64
	when time.Time
}

// DefaultDir is where the cache lies unless told otherwise: imgbuild below
// XDG_CACHE_HOME, which is ~/.cache when unset (XDG base directory specification).
func DefaultDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) { // the specification: relative paths are to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache folder: %w (set XDG_CACHE_HOME)", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "imgbuild"), nil
}

// Open makes the folders that are missing and returns the store in dir.
func Open(dir string) (*Store, error) {
	for _, d := range []string{"blobs", "actions", "locks", "memory", "notes", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil { // #nosec G301 -- a cache holds nothing secret
			return nil, fmt.Errorf("opening the cache: %w", err)
		}
	}
	s := &Store{dir: dir, seen: map[string]stamp{}}
	s.sweep()
	return s, nil
}

// TempDir makes a scratch folder on the store's file system; the caller removes it.
func (s *Store) TempDir(pattern string) (string, error) {
	return os.MkdirTemp(filepath.Join(s.dir, "tmp"), pattern)
}

// Put reads r to its end and files what it held. It returns the digest as
// "sha256:…" and the size in bytes. An error of r leaves nothing behind.
func (s *Store) Put(ctx context.Context, r io.Reader) (digest string, size int64, err error) {
	digest, size, err = s.put(ctx, r, "")
	if err != nil {
		return "", 0, fmt.Errorf("filing a blob in the cache: %w", err)
	}
	return digest, size, nil
}

// PutAs is Put for bytes that must have the digest want: any others are not
// filed, and the error is a *MismatchError.
func (s *Store) PutAs(ctx context.Context, r io.Reader, want string) (size int64, err error) {
	if err := checkDigest(want); err != nil {
		return 0, err
	}
	if _, size, err = s.put(ctx, r, want); err != nil {
		return 0, fmt.Errorf("filing a blob in the cache: %w", err)
	}
	return size, nil
}

// MismatchError says that bytes do not have the digest that was asked for.
type MismatchError struct {
	Got, Want string
	Size      int64 // of what came
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("got %s (%d bytes), want %s", e.Got, e.Size, e.Want)
}

// PutFile files the content of the file at path.
func (s *Store) PutFile(ctx context.Context, path string) (digest string, size int64, err error) {
	f, err := os.Open(path) // #nosec G304 -- the caller's file
	if err != nil {
		return "", 0, fmt.Errorf("filing a blob in the cache: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	return s.Put(ctx, f)
}

func (s *Store) put(ctx context.Context, r io.Reader, want string) (string, int64, error) {
	sum := sha256.New()
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "blob-*")
	if err != nil {
		return "", 0, err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	defer tmp.Close()           //nolint:errcheck // closed below; this is for the error paths
	size, err := io.Copy(io.MultiWriter(tmp, sum), ctxReader{ctx, r})
	if err != nil {
		return "", 0, err
	}
	digest := prefix + hex.EncodeToString(sum.Sum(nil))
	if want != "" && digest != want {
		return "", 0, &MismatchError{digest, want, size}
	}
	if err := errors.Join(tmp.Chmod(0o444), tmp.Sync(), tmp.Close()); err != nil {
		return "", 0, err
	}
	if err := rename(tmp.Name(), s.blob(digest)); err != nil {
		return "", 0, err
	}
	_ = s.Vouch(s.blob(digest), sound) // else it is read again
	return digest, size, nil
}

// Get returns the path of a blob whose bytes have that digest. The file is read to see
// that (about 1 s for 1 GB) unless nobody has touched it since it was filed or read last,
// which its change time tells. What a disk returns otherwise than it was written, Recheck
// and Verify find. A missing blob is fs.ErrNotExist, a changed one ErrDamaged. The file is
// for reading only.
func (s *Store) Get(digest string) (string, error) {
	return s.orGone(s.check(digest, true))
}

// orGone takes a damaged blob away.
func (s *Store) orGone(path string, err error) (string, error) {
	if errors.Is(err, ErrDamaged) {
		_ = os.Remove(path)
		return "", fmt.Errorf("%w; it was taken away, run again", err)
	}
	return path, err
}

// Recheck reads every blob that Get gave out unread, and takes damaged ones away: the
// error names them.
func (s *Store) Recheck() error {
	s.mu.Lock()
	trusted := s.trusted
	s.trusted = nil
	s.mu.Unlock()
	var all []error
	for _, digest := range trusted {
		if _, err := s.orGone(s.check(digest, false)); errors.Is(err, ErrDamaged) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// sound is the word for a blob that was read and has the digest it is filed under.
const sound = "sound"

// check is Get, but leaves a damaged blob where it is and names its path. With trust it
// believes what an earlier process noted.
func (s *Store) check(digest string, trust bool) (string, error) {
	if err := checkDigest(digest); err != nil {
		return "", err
	}
	path := s.blob(digest)
	f, err := os.Open(path) // #nosec G304 -- below the store, from a checked digest
	if err != nil {
		return "", fmt.Errorf("cache has no %s: %w", digest, err)
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("reading %s from the cache: %w", digest, err)
	}
	s.touch(path, info)
	now := stamp{info.Size(), info.ModTime()}
	if trust && s.wasSeen(digest, now) {
		return path, nil
	}
	if trust = trust && s.Vouched(path, sound); !trust {
		sum, _, err := sparse.SHA256(f)
		if err != nil {
			return "", fmt.Errorf("reading %s from the cache: %w", digest, err)
		}
		if got := prefix + hex.EncodeToString(sum); got != digest {
			return path, fmt.Errorf("cache: %s is %w: its bytes have the digest %s", digest, ErrDamaged, got)
		}
		_ = s.Vouch(path, sound) // else it is read again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[digest] = now; trust {
		s.trusted = append(s.trusted, digest)
	}
	return path, nil
}

// Lookup returns the digest that was recorded for a key, when its blob is there.
func (s *Store) Lookup(key string) (digest string, ok bool) {
	b, err := os.ReadFile(s.action(key))
	if err != nil {
		return "", false
	}
	digest, _, _ = strings.Cut(string(b), "\n")
	if checkDigest(digest) != nil {
		return "", false
	}
	_, err = os.Stat(s.blob(digest))
	return digest, err == nil
}

// Record remembers that the work named by key gave the blob digest, which must
// be in the store. A later Record of the same key wins.
func (s *Store) Record(key, digest string) error {
	if err := checkDigest(digest); err != nil {
		return err
	}
	if _, err := os.Stat(s.blob(digest)); err != nil {
		return fmt.Errorf("recording a result: cache has no %s: %w", digest, err)
	}
	tmp, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), "action-*")
	if err != nil {
		return fmt.Errorf("recording a result: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.WriteString(digest + "\n" + key + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("recording a result: %w", err)
	}
	return rename(tmp.Name(), s.action(key))
}

// Lock waits until the caller alone holds the key, across processes, or ctx
// ends. A lock dies with its process.
func (s *Store) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l := flock.New(filepath.Join(s.dir, "locks", nameOf(key)))
	for {
		if _, err := l.TryLockContext(ctx, lockWait); err != nil {
			return nil, fmt.Errorf("waiting for another run that works on the same thing: %w", err)
		}
		held, err := l.Stat()
		there, err2 := os.Stat(l.Path())
		if err == nil && err2 == nil && os.SameFile(held, there) {
			return func() { _ = l.Unlock() }, nil
		}
		_ = l.Unlock() // Prune took the file away between our opening it and our lock: nobody else would see that one
	}
}

// Once returns the path of the blob that the work named by key gives: from the
// cache when it is there and sound, else by calling fn, which does the work and
// returns a digest that it has Put. Of several callers, in any process, one
// works and the others wait for its result. An error of fn is not remembered.
func (s *Store) Once(ctx context.Context, key string, fn func(context.Context) (digest string, err error)) (path string, err error) {
	if path, ok := s.result(key); ok {
		return path, nil
	}
	unlock, err := s.Lock(ctx, key)
	if err != nil {
		return "", err
	}
	defer unlock()
	if path, ok := s.result(key); ok {
		return path, nil
	}
	digest, err := fn(ctx)
	if err != nil {
		return "", err
	}
	if err := s.Record(key, digest); err != nil {
		return "", err
	}
	return s.Get(digest)
}

func (s *Store) result(key string) (string, bool) {
	digest, ok := s.Lookup(key)
	if !ok {
		return "", false
	}
	path, err := s.Get(digest)
	return path, err == nil
}

func (s *Store) wasSeen(digest string, now stamp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[digest] == now
}

// sweep takes away what dead processes left behind. Failing to is no error.
func (s *Store) sweep() {
	tmp := filepath.Join(s.dir, "tmp")
	entries, _ := os.ReadDir(tmp)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && repro.Now().Sub(info.ModTime()) > staleTmp {
			_ = os.RemoveAll(filepath.Join(tmp, e.Name()))
		}
	}
}

func (s *Store) blob(digest string) string {
	return filepath.Join(s.dir, "blobs", strings.TrimPrefix(digest, prefix))
}

func (s *Store) action(key string) string { return filepath.Join(s.dir, "actions", nameOf(key)) }

func nameOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func checkDigest(digest string) error {
	rest, ok := strings.CutPrefix(digest, prefix)
	if b, err := hex.DecodeString(rest); !ok || err != nil || len(b) != sha256.Size || rest != strings.ToLower(rest) {
		return fmt.Errorf("%q is no digest: want sha256: and 64 lower-case hex digits: %w", digest, fs.ErrInvalid)
	}
	return nil
}

// rename is os.Rename that also holds after a power cut.
func rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
