// Package netboot is the shape of an image that boots by network alone: a unified kernel
// image whose initrd carries the root file system, its hash tree, and before them a slot
// that is filled for one machine with its systemd credentials. Firmware (UEFI HTTP boot,
// PXE) and iPXE load it as any UKI. It knows neither how a root file system is made nor
// who asks.
package netboot

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// What the initrd of such an image has beside that of a disk.
const (
	Root   = "imgbuild/root.erofs"  // the root file system
	Tree   = "imgbuild/root.verity" // its hash tree, with the superblock
	Loop   = "imgbuild/loop.ko"     // the kernel's loop device, with the ending of its compression; none where it is built in
	mark   = "imgbuild/machine"     // begins the slot
	folder = ".extra/global_credentials"
	ending = ".cred"
)

// Slot is the size in bytes of the place for one machine's credentials: the beginning of
// the section .initrd. It is a cpio archive (newc) and zeros; the rest is packed by zstd.
const Slot = 256 << 10

// Section is what the initrd lies in.
const Section = ".initrd"

// Fill is a slot with credentials, name → content. What does not fit is an error.
func Fill(credentials map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	a := Archive{W: cpio.NewWriter(&out)}
	a.File(mark, 0o400, nil)
	if len(credentials) > 0 {
		a.Folder(".extra")
		a.Folder(folder)
	}
	for _, name := range slices.Sorted(maps.Keys(credentials)) {
		if name == "" || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, ".") {
			return nil, fmt.Errorf("%q is no name of a credential", name)
		}
		a.File(folder+"/"+name+ending, 0o400, credentials[name])
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	if out.Len() > Slot {
		return nil, fmt.Errorf("the credentials take %d bytes, and the image has room for %d", out.Len(), Slot)
	}
	return append(out.Bytes(), make([]byte, Slot-out.Len())...), nil
}

// Credentials are what is in a slot.
func Credentials(slot []byte) (map[string][]byte, error) {
	if len(slot) != Slot {
		return nil, fmt.Errorf("a slot of %d bytes, want %d", len(slot), Slot)
	}
	out := map[string][]byte{}
	r := cpio.NewReader(bytes.NewReader(slot))
	for first := true; ; first = false {
		h, err := r.Next()
		if errors.Is(err, io.EOF) && !first {
			return out, nil
		}
		if err != nil || first && h.Name != mark {
			return nil, fmt.Errorf("it has no place for a machine's settings: %w", errors.Join(err, errors.New("no "+mark)))
		}
		if name, ok := strings.CutPrefix(h.Name, folder+"/"); ok {
			text, err := io.ReadAll(r)
			if err != nil {
				return nil, err
			}
			out[strings.TrimSuffix(name, ending)] = text
		}
	}
}

// Find says where the slot of an image lies in its file. An image without one, as that
// of a disk, is an error.
func Find(image io.ReaderAt) (at int64, err error) {
	f, err := pe.NewFile(image)
	if err != nil {
		return 0, fmt.Errorf("no unified kernel image: %w", err)
	}
	s := f.Section(Section)
	if s == nil || s.VirtualSize < Slot || s.Size < s.VirtualSize {
		return 0, errors.New("it is not made for network boot")
	}
	head := make([]byte, 110+len(mark)) // a header of newc, and the name
	if _, err := image.ReadAt(head, int64(s.Offset)); err != nil || string(head[110:]) != mark {
		return 0, errors.New("it is not made for network boot")
	}
	return int64(s.Offset), nil
}

// Archive writes a cpio archive (newc) with one time stamp, and keeps the first error.
type Archive struct {
	W   *cpio.Writer
	err error
	ino int64
}

// Folder adds a folder.
func (a *Archive) Folder(name string) {
	a.put(&cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755}, nil)
}

// File adds a file with its content.
func (a *Archive) File(name string, perm cpio.FileMode, data []byte) {
	a.Copy(name, perm, int64(len(data)), bytes.NewReader(data))
}

// Copy adds a file of size bytes that are read from r.
func (a *Archive) Copy(name string, perm cpio.FileMode, size int64, r io.Reader) {
	a.put(&cpio.Header{Name: name, Mode: cpio.TypeReg | perm, Size: size}, r)
}

func (a *Archive) put(h *cpio.Header, r io.Reader) {
	if a.err != nil {
		return
	}
	a.ino++
	h.Inode, h.Links, h.ModTime = a.ino, 1, repro.Epoch()
	if a.err = a.W.WriteHeader(h); a.err == nil && r != nil {
		_, a.err = io.CopyN(a.W, r, h.Size)
	}
}

// Close ends the archive, and returns the first error there was.
func (a *Archive) Close() error {
	if a.err != nil {
		return a.err
	}
	return a.W.Close()
}
