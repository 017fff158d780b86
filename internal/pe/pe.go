// Package pe puts a Unified Kernel Image together: sections appended to
// systemd's PE stub, the same bytes for the same input. It follows the UAPI
// Group's Unified Kernel Image specification and Microsoft's PE format
// (PE32+ only). It does not sign, and it does not read images back.
package pe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Section is one section of the image. Name has 2 to 8 bytes and starts with a
// dot, such as .osrel, .cmdline, .uname, .linux or .initrd.
type Section struct {
	Name string
	Data []byte
}

// Fields of the PE headers: those of the COFF header count from the "PE\0\0"
// signature, those of the optional header (PE32+) from its own start.
const (
	lfanewField = 0x3c

	coffSections   = 6
	coffSymbols    = 12
	coffSymbolNum  = 16
	coffOptSize    = 20
	coffHeaderSize = 24

	optInitialized      = 8
	optSectionAlign     = 32
	optFileAlign        = 36
	optSizeOfImage      = 56
	optSizeOfHeaders    = 60
	optCheckSum         = 64
	optDirectories      = 108
	optSecurityDir      = 112 + 4*8
	optMinSize          = optSecurityDir + 8
	optMagicPE32Plus    = 0x20b
	sectionHeaderSize   = 40
	sectionReadOnlyData = 0x40000040 // IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
)

var le = binary.LittleEndian

// UKI returns stub with the sections added, in the order given. The stub must
// be an unsigned PE32+ file that has no section of the same name. Where the
// stub's header has no room, its content moves back in the file. Memory: the
// result is as large as all parts together.
func UKI(stub []byte, sections []Section) ([]byte, error) {
	if len(sections) == 0 {
		return nil, errors.New("assembling the unified kernel image: no sections to add")
	}
	last := sections[len(sections)-1]
	head, tail, err := Begin(stub, sections[:len(sections)-1], last.Name, int64(len(last.Data)))
	if err != nil {
		return nil, err
	}
	return slices.Concat(head, last.Data, make([]byte, tail)), nil
}

// Begin is UKI for a last section that is too large for memory: what comes before the
// last section's size bytes in the file, and how many zeros come after them.
func Begin(stub []byte, sections []Section, last string, size int64) (head []byte, tail int, err error) {
	img, err := parse(stub)
	if err != nil {
		err = fmt.Errorf("stub: %w", err)
	} else {
		err = img.checkNames(sections, last, size)
	}
	if err == nil {
		err = img.makeRoom(len(sections) + 1)
	}
	if err == nil {
		tail, err = img.add(sections, last, size)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("assembling the unified kernel image: %w", err)
	}
	return img.data, tail, nil
}

// image is a PE file on its way; coff, opt and table are offsets into data.
type image struct {
	data                    []byte
	coff, opt, table, count int
	sectionAlign, fileAlign int
}

func parse(stub []byte) (*image, error) {
	if len(stub) < lfanewField+4 || string(stub[:2]) != "MZ" {
		return nil, errors.New("not a PE file")
	}
	coff := int(le.Uint32(stub[lfanewField:]))
	if coff < lfanewField+4 || coff > len(stub)-coffHeaderSize-optMinSize || string(stub[coff:coff+4]) != "PE\x00\x00" {
		return nil, errors.New("not a PE file")
	}
	img := &image{data: bytes.Clone(stub), coff: coff, opt: coff + coffHeaderSize}
	img.table = img.opt + int(img.u16(coff+coffOptSize))
	img.count = int(img.u16(coff + coffSections))
	img.sectionAlign, img.fileAlign = int(img.u32(img.opt+optSectionAlign)), int(img.u32(img.opt+optFileAlign))
	switch {
	case img.u16(img.opt) != optMagicPE32Plus || img.table < img.opt+optMinSize || img.u32(img.opt+optDirectories) < 5:
		return nil, errors.New("not a 64-bit PE file (PE32+)")
	case !isAlignment(img.fileAlign) || !isAlignment(img.sectionAlign):
		return nil, fmt.Errorf("alignments %d and %d must be powers of two from 512 to 65536", img.sectionAlign, img.fileAlign)
	case img.count == 0 || img.table+img.count*sectionHeaderSize > img.headers() || img.headers() > len(stub):
		return nil, fmt.Errorf("%d sections do not fit the header of %d bytes", img.count, img.headers())
	case img.u32(img.opt+optSecurityDir) != 0:
		return nil, errors.New("it is signed, and sections would break its signature: use the unsigned stub")
	}
	for i := range img.count {
		s := img.section(i)
		if start, size := int(s.u32(20)), int(s.u32(16)); size > 0 && (start < img.headers() || size > len(stub) || start > len(stub)-size) {
			return nil, fmt.Errorf("section %s lies at %d, outside the file", s.name(), start)
		}
	}
	return img, nil
}

func isAlignment(n int) bool { return n >= 512 && n <= 65536 && n&(n-1) == 0 }

func (img *image) u16(at int) uint16 { return le.Uint16(img.data[at:]) }
func (img *image) u32(at int) uint32 { return le.Uint32(img.data[at:]) }
func (img *image) headers() int      { return int(img.u32(img.opt + optSizeOfHeaders)) }

func (img *image) put32(at, value int) { le.PutUint32(img.data[at:], uint32(value)) } // #nosec G115 -- add keeps all below 2 GiB

// header is one entry of the section table.
type header []byte

func (img *image) section(i int) header {
	at := img.table + i*sectionHeaderSize
	return header(img.data[at : at+sectionHeaderSize])
}

func (h header) u32(at int) uint32 { return le.Uint32(h[at:]) }
func (h header) name() string      { return string(bytes.TrimRight(h[:8], "\x00")) }

// end is where the section ends in memory, relative to the image's base.
func (h header) end() int { return int(h.u32(12)) + int(max(h.u32(8), h.u32(16))) }

func (img *image) checkNames(sections []Section, last string, size int64) error {
	have := map[string]bool{}
	for i := range img.count {
		have[img.section(i).name()] = true
	}
	check := func(name string, size int64) error {
		switch {
		case len(name) < 2 || len(name) > 8 || !strings.HasPrefix(name, "."):
			return fmt.Errorf("section name %q: must be a dot and 1 to 7 more bytes", name)
		case have[name]:
			return fmt.Errorf("section %s is there twice", name)
		case size == 0:
			return fmt.Errorf("section %s is empty: leave it out", name)
		}
		have[name] = true
		return nil
	}
	for _, s := range sections {
		if err := check(s.Name, int64(len(s.Data))); err != nil {
			return err
		}
	}
	return check(last, size)
}

// makeRoom widens the header for n more sections: what lies behind it in the
// file moves back. In memory the first section must start late enough.
func (img *image) makeRoom(n int) error {
	need := alignUp(img.table+(img.count+n)*sectionHeaderSize, img.fileAlign)
	extra := need - img.headers()
	if extra <= 0 {
		return nil
	}
	first := math.MaxInt
	for i := range img.count {
		first = min(first, int(img.section(i).u32(12)))
	}
	if need > first {
		return fmt.Errorf("%d more sections need a header of %d bytes, but the stub's first section starts at %d in memory: use fewer sections or another stub", n, need, first)
	}
	at := img.headers()
	img.data = append(img.data[:at:at], append(make([]byte, extra), img.data[at:]...)...)
	for i := range img.count {
		if s := img.section(i); s.u32(16) > 0 {
			le.PutUint32(s[20:], s.u32(20)+uint32(extra)) // #nosec G115 -- a few KiB
		}
	}
	img.put32(img.opt+optSizeOfHeaders, need)
	return nil
}

// add appends the sections, of the last its header alone, and brings the headers up to
// date. It returns how many zeros the last section ends in.
func (img *image) add(sections []Section, last string, size int64) (tail int, err error) {
	address, total := 0, int64(len(img.data))
	for i := range img.count {
		address = max(address, img.section(i).end())
	}
	for _, s := range sections {
		total += int64(len(s.Data) + img.fileAlign + img.sectionAlign)
	}
	if total+int64(address)+size > math.MaxInt32-1<<20 {
		return 0, fmt.Errorf("image of %d bytes, the format holds at most 2 GiB", total+size)
	}
	out := bytes.NewBuffer(make([]byte, 0, total))
	out.Write(img.data)
	initialized := int(img.u32(img.opt + optInitialized))
	enter := func(i int, name string, size int) {
		pad(out, img.fileAlign)
		address = alignUp(address, img.sectionAlign)
		h := out.Bytes()[img.table+(img.count+i)*sectionHeaderSize:][:sectionHeaderSize]
		clear(h)
		copy(h, name)
		raw := alignUp(size, img.fileAlign)
		for at, value := range map[int]int{8: size, 12: address, 16: raw, 20: out.Len(), 36: sectionReadOnlyData} {
			le.PutUint32(h[at:], uint32(value)) // #nosec G115 -- below 2 GiB
		}
		address += size
		initialized += raw
	}
	for i, s := range sections {
		enter(i, s.Name, len(s.Data))
		out.Write(s.Data)
	}
	enter(len(sections), last, int(size))
	img.data = out.Bytes()
	le.PutUint16(img.data[img.coff+coffSections:], uint16(img.count+len(sections)+1)) // #nosec G115 -- the header's room bounds it
	img.put32(img.opt+optInitialized, initialized)
	img.put32(img.opt+optSizeOfImage, alignUp(address, img.sectionAlign))
	img.put32(img.opt+optCheckSum, 0) // firmware does not look at it, and zero is allowed
	img.put32(img.coff+coffSymbols, 0)
	img.put32(img.coff+coffSymbolNum, 0)
	return alignUp(int(size), img.fileAlign) - int(size), nil
}

func pad(b *bytes.Buffer, to int) { b.Write(make([]byte, alignUp(b.Len(), to)-b.Len())) }

func alignUp(n, to int) int { return (n + to - 1) / to * to }
