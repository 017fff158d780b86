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

// readBoot reads the ESP: a boot loader where firmware looks, and one UKI.
func (r *Report) readBoot(esp *io.SectionReader) error {
	boot, err := fat32.Read(diskview.View{SectionReader: esp}, esp.Size(), 0, sectorSize)
	if err != nil {
		return fmt.Errorf("reading the EFI system partition: %w", err)
	}
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi", "loader/loader.conf"} {
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
	return r.readUKI(data)
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

// readUKI reads the sections that the UAPI specification of unified kernel images names.
func (r *Report) readUKI(data []byte) error {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s: %w", r.UKI, err)
	}
	sections := map[string][]byte{}
	for _, s := range f.Sections {
		end := int64(s.Offset) + int64(s.Size)
		if s.Offset == 0 && s.Size > 0 || end > int64(len(data)) {
			return fmt.Errorf("%s: section %s: its %d bytes at %d are not in the file", r.UKI, s.Name, s.Size, s.Offset)
		}
		if _, ok := sections[s.Name]; ok {
			r.say("boot", r.UKI, "two sections %s: the stub would take the first", s.Name)
			return nil
		}
		sections[s.Name] = data[s.Offset:min(end, int64(s.Offset)+int64(s.VirtualSize))]
	}
	for _, name := range []string{".linux", ".initrd", ".cmdline", ".osrel", ".uname"} {
		if len(sections[name]) == 0 {
			r.say("boot", r.UKI, "no section %s", name)
		}
	}
	r.Cmdline, r.Kernel = string(sections[".cmdline"]), string(sections[".uname"])
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
