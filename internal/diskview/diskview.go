// Package diskview lets go-diskfs read a part of a disk, whatever that lies in: a raw
// image, one that is compressed, memory.
package diskview

import (
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/backend"
)

// View is a part of a disk as the library wants it; it cannot write.
type View struct{ *io.SectionReader }

var _ backend.Storage = View{}

// Stat implements fs.File: only the size means anything.
func (v View) Stat() (fs.FileInfo, error) { return info{v.Size()}, nil }

// Close implements fs.File, and closes nothing.
func (v View) Close() error { return nil }

// Sys implements backend.Storage: there is no file.
func (v View) Sys() (*os.File, error) { return nil, backend.ErrNotSuitable }

// Writable implements backend.Storage: it is not.
func (v View) Writable() (backend.WritableFile, error) { return nil, backend.ErrIncorrectOpenMode }

// Path implements backend.Storage: it has none.
func (v View) Path() string { return "" }

type info struct{ size int64 }

func (i info) Name() string       { return "disk" }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return 0o400 }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return false }
func (i info) Sys() any           { return nil }
