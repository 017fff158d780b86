package verify

import (
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/imgbuild/imgbuild/internal/diskview"
)

// readBoot reads the ESP: a boot loader where firmware looks, and one UKI; with a BIOS
// boot partition on the disk what GRUB is told, too.
func (r *Report) readBoot(esp *io.SectionReader, bios bool) error {
	boot, err := fat32.Read(diskview.View{SectionReader: esp}, esp.Size(), 0, sectorSize)
	if err != nil {
		return fmt.Errorf("reading the EFI system partition: %w", err)
	}
	for _, name := range []string{"EFI/BOOT/BOOT" + strings.ToUpper(r.efi) + ".EFI", "EFI/systemd/systemd-boot" + r.efi + ".efi", "loader/loader.conf"} {
		if _, err := boot.ReadFile(name); err != nil {
			r.say("boot", name, "not in the EFI system partition")
		}
	}
	if stamps, err := boot.ReadDir("loader/credentials"); err == nil && len(stamps) > 0 {
		r.say("hygiene", "loader/credentials", "it is stamped with %d credentials: a copy for one machine, and a secret (imgbuild stamp --clear)", len(stamps))
	}
	entries, err := boot.ReadDir("EFI/Linux")
	if err != nil || len(entries) != 1 {
		r.say("boot", "EFI/Linux", "want one unified kernel image, found %d", len(entries))
		return nil
	}
	r.UKI = path.Join("EFI/Linux", entries[0].Name())
	data, err := readWhole(boot, r.UKI, esp.Size())
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.UKI, err)
	}
	if err := r.readUKI(bytes.NewReader(data), int64(len(data))); err != nil || !bios {
		return err
	}
	return r.checkBIOS(boot, data)
}

// readWhole reads a file into memory of its size, which most is the limit of.
func readWhole(fsys fs.FS, name string, most int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%d bytes do not fit in its file system", info.Size())
	}
	data := make([]byte, info.Size())
	_, err = io.ReadFull(f, data)
	return data, err
}

// maxSection bounds what is read of a section of text, bytes.
const maxSection = 64 << 10

// readUKI reads the sections that the UAPI specification of unified kernel images names.
// Of the large ones it wants no more than that they are there.
func (r *Report) readUKI(src io.ReaderAt, size int64) error {
	f, err := pe.NewFile(src)
	if err != nil {
		return fmt.Errorf("%s: %w", r.UKI, err)
	}
	r.checkUKI(f.Machine)
	there, sections := map[string]bool{}, map[string][]byte{}
	for _, s := range f.Sections {
		end := int64(s.Offset) + int64(s.Size)
		if s.Offset == 0 && s.Size > 0 || end > size {
			return fmt.Errorf("%s: section %s: its %d bytes at %d are not in the file", r.UKI, s.Name, s.Size, s.Offset)
		}
		if there[s.Name] {
			r.say("boot", r.UKI, "two sections %s: the stub would take the first", s.Name)
			return nil
		}
		n := min(s.Size, s.VirtualSize)
		there[s.Name] = n > 0
		if s.Name == ".linux" || s.Name == ".initrd" {
			continue
		}
		sections[s.Name] = make([]byte, min(n, maxSection))
		if err := readAt(src, sections[s.Name], int64(s.Offset)); err != nil {
			return fmt.Errorf("%s: section %s: %w", r.UKI, s.Name, err)
		}
	}
	for _, name := range []string{".linux", ".initrd", ".cmdline", ".osrel", ".uname"} {
		if !there[name] {
			r.say("boot", r.UKI, "no section %s", name)
		}
	}
	r.Cmdline, r.Kernel = string(sections[".cmdline"]), string(sections[".uname"])
	r.noSecret(r.UKI, sections[".cmdline"])
	r.OS = keyValues(string(sections[".osrel"]))
	for word := range strings.FieldsSeq(r.Cmdline) {
		if hash, ok := strings.CutPrefix(word, "roothash="); ok {
			if raw, err := hex.DecodeString(hash); err != nil || len(raw) != 32 {
				r.say("boot", r.UKI, "roothash=%s is not 64 hex digits", hash)
				return nil
			}
			if r.RootHash != "" {
				r.say("boot", r.UKI, "the command line has two roothash=")
			}
			r.RootHash = cmp.Or(r.RootHash, hash) // the node takes the first
		}
	}
	if r.RootHash == "" {
		r.say("boot", r.UKI, "the command line has no roothash=")
	}
	return nil
}
