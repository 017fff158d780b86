// Package iso9660 writes a small ISO 9660 file system with Joliet names (ECMA-119),
// the same bytes for the same files on every run.
package iso9660

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/imgbuild/imgbuild/internal/repro"
)

const (
	sector = 2048
	// descriptors is where the volume descriptors begin; each has four dates.
	descriptors = 16 * sector
	dates       = 813
	dateSize    = 17
)

// Write makes the file dst: a file system with that label, at most 16 characters, and
// files in its root.
func Write(dst, label string, files map[string][]byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing ISO 9660: %w", err)
		}
	}()
	f, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- the caller's file, which holds no secret
	if err != nil {
		return err
	}
	return errors.Join(write(f, label, files), f.Close())
}

func write(f *os.File, label string, files map[string][]byte) error {
	staged, err := os.MkdirTemp("", "imgbuild-iso-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(staged) //nolint:errcheck // a scratch folder
	fsys, err := iso9660.Create(file.New(f, false), 0, 0, sector, staged)
	if err != nil {
		return err
	}
	moment := repro.Epoch().UTC()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(staged, name), data, 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(filepath.Join(staged, name), moment, moment); err != nil {
			return err
		}
	}
	if err := os.Chtimes(staged, moment, moment); err != nil {
		return err
	}
	if err := fsys.Finalize(iso9660.FinalizeOptions{Joliet: true, VolumeIdentifier: label}); err != nil {
		return err
	}
	return settle(f, moment)
}

// settle gives the volume descriptors a date that is always the same; the library
// takes the hour's.
func settle(f *os.File, moment time.Time) error {
	date := append([]byte(moment.Format("20060102150405")+"00"), 0)
	for at := int64(descriptors); ; at += sector {
		kind := make([]byte, 1)
		if _, err := f.ReadAt(kind, at); err != nil {
			return err
		}
		switch kind[0] {
		case 255: // the last one
			return nil
		case 1, 2:
			for i := range int64(4) {
				if _, err := f.WriteAt(date, at+dates+i*dateSize); err != nil {
					return err
				}
			}
		}
	}
}
