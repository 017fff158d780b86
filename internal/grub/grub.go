// Package grub puts together what boots a disk by BIOS: GRUB 2's boot and core image for
// i386-pc, from the parts that GRUB was built as (the files of Debian's package
// grub-pc-bin), as grub-mkimage and grub-bios-setup do it, with no program run. The same
// parts make the same bytes. It knows neither partitions nor what is booted.
package grub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ulikunitz/xz/lzma"
)

// Sector is how much a BIOS reads at once, bytes.
const Sector = 512

var le = binary.LittleEndian

// Places in the parts (include/grub/i386/pc/boot.h, kernel.h and offsets.h).
const (
	bootSector   = 0x5c // in boot.img, 8 bytes: the sector of the core image
	bootCheck    = 0x66 // in boot.img: jumps over the check of the drive's number
	bootCode     = 440  // of boot.img; then come the disk's number and its partitions
	nextSector   = 0x1f4
	nextLength   = 0x1fc // in diskboot.img: where the rest of the core image lies, and how many sectors
	packedSize   = 0x08
	unpackedSize = 0x0c // in lzma_decompress.img
	lowest       = 0x8200
	highest      = 0x78000 // where a core image goes in memory
)

// Kinds of what a core image carries (include/grub/kernel.h).
const (
	kindELF    = 0
	kindPrefix = 3
)

// Image is what boots, for a core image that begins at one sector of a disk.
type Image struct {
	Boot []byte // the first 440 bytes of the disk
	Core []byte // whole sectors
}

// Make puts an image together. Part reads one of GRUB's files by its name, such as
// normal.mod. Modules are loaded in the order of what they depend on; prefix is the folder
// of grub.cfg, such as (,gpt1)/loader, and sector where the core image will lie.
func Make(part func(name string) ([]byte, error), prefix string, sector uint64, modules ...string) (Image, error) {
	m, err := load(part, modules)
	if err != nil {
		return Image{}, fmt.Errorf("GRUB for BIOS: %w", err)
	}
	core, err := m.core(prefix, sector)
	if err != nil {
		return Image{}, fmt.Errorf("GRUB for BIOS: %w", err)
	}
	le.PutUint64(m.boot[bootSector:], sector)
	copy(m.boot[bootCheck:], []byte{0x90, 0x90}) // no operation: some BIOSes hand over no drive's number
	return Image{Boot: m.boot[:bootCode], Core: core}, nil
}

// parts are GRUB's files in memory.
type parts struct {
	boot, diskboot, unpacker []byte
	kernel                   []byte // as it lies in memory
	modules                  [][]byte
}

func load(part func(string) ([]byte, error), modules []string) (p parts, err error) {
	for name, f := range map[string]struct {
		to   *[]byte
		size int
	}{"boot.img": {&p.boot, Sector}, "diskboot.img": {&p.diskboot, Sector}, "lzma_decompress.img": {&p.unpacker, unpackedSize + 4}} {
		data, err := part(name)
		if err != nil {
			return p, err
		}
		if len(data) < f.size || len(data) != Sector && f.size == Sector {
			return p, fmt.Errorf("%s has %d bytes", name, len(data))
		}
		*f.to = bytes.Clone(data)
	}
	kernel, err := part("kernel.img")
	if err != nil {
		return p, err
	}
	if p.kernel, err = flat(kernel); err != nil {
		return p, fmt.Errorf("kernel.img: %w", err)
	}
	list, err := part("moddep.lst")
	if err != nil {
		return p, err
	}
	names, err := needed(string(list), modules)
	if err != nil {
		return p, err
	}
	for _, name := range names {
		data, err := part(name + ".mod")
		if err != nil {
			return p, err
		}
		p.modules = append(p.modules, data)
	}
	return p, nil
}

// flat is a program as its one segment lies in memory, without what is zero.
func flat(program []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD {
			continue
		}
		if s.Off > uint64(len(program)) || s.Filesz > uint64(len(program))-s.Off {
			return nil, errors.New("its segment is not in it")
		}
		return program[s.Off : s.Off+s.Filesz], nil
	}
	return nil, errors.New("it has no segment")
}

// needed are modules and what they depend on, which comes first. The list has a line for
// each: NAME: OTHER ...
func needed(list string, modules []string) (out []string, err error) {
	others := map[string][]string{}
	for line := range strings.Lines(list) {
		name, rest, _ := strings.Cut(line, ":")
		others[name] = strings.Fields(rest)
	}
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		on, known := others[name]
		if !known {
			err = errors.Join(err, fmt.Errorf("moddep.lst knows no module %q", name))
		}
		for _, other := range slices.Backward(on) { // as grub-mkimage has them
			add(other)
		}
		out = append(out, name)
	}
	for _, name := range modules {
		add(name)
	}
	return out, err
}

// core is the core image: its first sector loads the others; the rest is the kernel with
// its modules, packed, behind what unpacks it.
func (p parts) core(prefix string, sector uint64) ([]byte, error) {
	var carried []byte
	for _, m := range p.modules {
		carried = object(carried, kindELF, m)
	}
	carried = object(carried, kindPrefix, append([]byte(prefix), 0))
	image := bytes.Clone(p.kernel)
	image = append(image, "mimg"...)
	image = le.AppendUint32(image, 12)
	image = le.AppendUint32(image, uint32(12+len(carried))) // #nosec G115 -- parts of a boot loader are small
	image = append(image, carried...)
	packed, err := pack(image)
	if err != nil {
		return nil, err
	}
	out := append(bytes.Clone(p.diskboot), p.unpacker...)
	le.PutUint32(out[Sector+packedSize:], uint32(len(packed)))  // #nosec G115 -- as above
	le.PutUint32(out[Sector+unpackedSize:], uint32(len(image))) // #nosec G115 -- as above
	out = append(out, packed...)
	out = append(out, make([]byte, (Sector-len(out)%Sector)%Sector)...)
	if len(out)-Sector > highest-lowest {
		return nil, fmt.Errorf("the core image has %d bytes, %d at most: with fewer modules", len(out), highest-lowest)
	}
	le.PutUint64(out[nextSector:], sector+1)
	le.PutUint16(out[nextLength:], uint16(len(out)/Sector-1)) // #nosec G115 -- bounded above
	return out, nil
}

// object adds one thing that a core image carries, at a multiple of four bytes.
func object(to []byte, kind uint32, data []byte) []byte {
	size := (len(data) + 3) / 4 * 4
	to = le.AppendUint32(to, kind)
	to = le.AppendUint32(to, uint32(8+size)) // #nosec G115 -- as above
	return append(append(to, data...), make([]byte, size-len(data))...)
}

// headerSize is that of an LZMA file, which the unpacker does without: it knows the
// properties, and the sizes are told it.
const headerSize = 13

func pack(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := lzma.WriterConfig{Properties: &lzma.Properties{LC: 3, LP: 0, PB: 2}, DictCap: 1 << 20, SizeInHeader: true, Size: int64(len(data))}.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes()[headerSize:], nil
}
