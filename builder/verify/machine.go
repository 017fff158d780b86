package verify

import (
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"io"
	"io/fs"
)

// processor is one that nodes run on, as the specifications number it.
type processor struct {
	name         string
	root, verity string      // type GUIDs of the Discoverable Partitions Specification
	efi          string      // ending of its boot loaders (UEFI specification, section 3.5.1.1)
	pe           uint16      // in a PE header
	elf          elf.Machine // in an ELF header
}

var processors = []processor{
	{"amd64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "x64", pe.IMAGE_FILE_MACHINE_AMD64, elf.EM_X86_64},
	{"arm64", "b921b045-1df0-41c3-af44-4c6f280d3fae", "df3300ce-d69f-4c92-978c-9bfb0f38d820", "aa64", pe.IMAGE_FILE_MACHINE_ARM64, elf.EM_AARCH64},
}

// findRoot finds the root and its hash tree, and keeps whose they are; nil: one is not there.
func (r *Report) findRoot(parts []Partition) (root, tree *Partition) {
	for _, p := range processors {
		if root, tree = find(parts, p.root), find(parts, p.verity); root != nil && tree != nil {
			r.processor = p
			return root, tree
		}
	}
	return nil, nil
}

// checkUKI wants a program for UEFI of the root's processor; an image without
// partitions is for whatever its program is for.
func (r *Report) checkUKI(machine uint16) {
	for _, p := range processors {
		if p.pe != machine {
			continue
		}
		if r.name == "" {
			r.processor = p
		}
		if p.name != r.name {
			r.say("boot", r.UKI, "it is for %s, the root for %s", p.name, r.name)
		}
		return
	}
	r.say("boot", r.UKI, "it is for a processor of number %#x, on which no node runs", machine)
}

// checkProgram wants a program of the root to be for its processor. Whether it is there,
// and can be read, is told elsewhere.
func (r *Report) checkProgram(fsys fs.FS, p string) {
	f, err := fsys.Open(p)
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // read only
	head := make([]byte, 20)
	if _, err := io.ReadFull(f, head); err != nil {
		return
	}
	if machine := elf.Machine(binary.LittleEndian.Uint16(head[18:])); string(head[:4]) == elf.ELFMAG && machine != r.elf {
		r.say("boot", p, "it is for %v, the image for %s", machine, r.name)
	}
}
