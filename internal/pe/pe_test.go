package pe

import (
	"bytes"
	"debug/pe"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

var sections = []Section{
	{".osrel", []byte("ID=imgbuild\nVERSION_ID=1\n")},
	{".cmdline", []byte("root=/dev/mapper/root ro")},
	{".uname", []byte("6.12.1")},
	{".initrd", bytes.Repeat([]byte("initrd"), 100_000)},
	{".linux", bytes.Repeat([]byte("MZ"), 512)},
}

// tiny makes the smallest stub that has what UKI looks at: one section of code,
// which starts at firstVA in memory, and a header of exactly one sector.
func tiny(firstVA uint32) []byte {
	b := make([]byte, 1024)
	copy(b, "MZ")
	le.PutUint32(b[lfanewField:], 64)
	coff, opt := 64, 64+coffHeaderSize
	copy(b[coff:], "PE\x00\x00\x64\x86")
	le.PutUint16(b[coff+coffSections:], 1)
	le.PutUint16(b[coff+coffOptSize:], 240)
	le.PutUint16(b[coff+22:], 0x22e)
	le.PutUint16(b[opt:], optMagicPE32Plus)
	le.PutUint32(b[opt+optSectionAlign:], 4096)
	le.PutUint32(b[opt+optFileAlign:], 512)
	le.PutUint32(b[opt+optSizeOfImage:], firstVA+4096)
	le.PutUint32(b[opt+optSizeOfHeaders:], 512)
	le.PutUint32(b[opt+optDirectories:], 16)
	s := b[opt+240:]
	copy(s, ".text")
	le.PutUint32(s[8:], 100)
	le.PutUint32(s[12:], firstVA)
	le.PutUint32(s[16:], 512)
	le.PutUint32(s[20:], 512)
	copy(b[512:], "code")
	return b
}

// stubs are the tiny one and, where it is installed, systemd's own.
func stubs(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"tiny": tiny(4096)}
	for _, name := range []string{"linuxx64.efi.stub", "linuxaa64.efi.stub"} {
		if b, err := os.ReadFile(filepath.Join("/usr/lib/systemd/boot/efi", name)); err == nil {
			out[name] = b
		}
	}
	return out
}

func TestAgainstDebugPE(t *testing.T) {
	for name, stub := range stubs(t) {
		t.Run(name, func(t *testing.T) {
			out, err := UKI(stub, sections)
			if err != nil {
				t.Fatal(err)
			}
			before, _ := pe.NewFile(bytes.NewReader(stub))
			after, err := pe.NewFile(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			want := append([]Section{}, sections...)
			for i := len(before.Sections) - 1; i >= 0; i-- {
				want = append([]Section{{before.Sections[i].Name, contents(t, before.Sections[i])}}, want...)
			}
			if len(after.Sections) != len(want) {
				t.Fatalf("%d sections, want %d", len(after.Sections), len(want))
			}
			end := uint32(0)
			oh := after.OptionalHeader.(*pe.OptionalHeader64)
			for i, s := range after.Sections {
				if s.Name != want[i].Name || !bytes.Equal(contents(t, s), want[i].Data) {
					t.Errorf("section %d: %s of %d bytes, want %s of %d", i, s.Name, s.VirtualSize, want[i].Name, len(want[i].Data))
				}
				isNew := i >= len(before.Sections)
				if s.VirtualAddress < end || isNew && s.VirtualAddress%oh.SectionAlignment != 0 || s.Offset%oh.FileAlignment != 0 || s.Offset < oh.SizeOfHeaders {
					t.Errorf("section %s at %#x in memory and %#x in the file", s.Name, s.VirtualAddress, s.Offset)
				}
				end = s.VirtualAddress + s.VirtualSize
			}
			if oh.SizeOfImage < end || oh.SizeOfImage%oh.SectionAlignment != 0 || oh.CheckSum != 0 {
				t.Errorf("size of image %#x, sections end at %#x, checksum %#x", oh.SizeOfImage, end, oh.CheckSum)
			}
			again, _ := UKI(stub, sections)
			if !bytes.Equal(out, again) {
				t.Error("two runs differ")
			}
		})
	}
}

func contents(t *testing.T, s *pe.Section) []byte {
	t.Helper()
	b, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return b[:min(len(b), int(s.VirtualSize))]
}

func TestObjcopy(t *testing.T) {
	if _, err := run.Look("objcopy"); err != nil {
		t.Skip("objcopy is not installed (package binutils)")
	}
	for name, stub := range stubs(t) {
		t.Run(name, func(t *testing.T) {
			out, err := UKI(stub, sections)
			if err != nil {
				t.Fatal(err)
			}
			image, dir := filepath.Join(t.TempDir(), "uki.efi"), t.TempDir()
			if err := os.WriteFile(image, out, 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"-O", "binary"}
			for _, s := range sections {
				args = append(args, fmt.Sprintf("--dump-section=%s=%s", s.Name, filepath.Join(dir, s.Name)))
			}
			err = run.Run(t.Context(), run.Cmd{Name: "objcopy", Args: append(args, image, os.DevNull)})
			if err != nil && strings.Contains(err.Error(), "file format") {
				t.Skipf("this objcopy does not know the stub's machine: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range sections {
				got, err := os.ReadFile(filepath.Join(dir, s.Name))
				if err != nil || !bytes.Equal(got[:min(len(got), len(s.Data))], s.Data) {
					t.Errorf("%s: %v, %d bytes, want %d", s.Name, err, len(got), len(s.Data))
				}
			}
		})
	}
}

func TestRefused(t *testing.T) {
	signed := tiny(4096)
	le.PutUint32(signed[64+coffHeaderSize+optSecurityDir:], 1024)
	outside := tiny(4096)
	le.PutUint32(outside[64+coffHeaderSize+240+20:], 0x7fffffff)
	one := sections[:1]
	cases := map[string]struct {
		stub     []byte
		sections []Section
		want     string
	}{
		"not PE":      {[]byte("#!/bin/sh"), one, "not a PE file"},
		"cut":         {tiny(4096)[:200], one, "not a PE file"},
		"signed":      {signed, one, "signed"},
		"outside":     {outside, one, "outside the file"},
		"no room":     {tiny(512), sections, "use fewer sections"},
		"none":        {tiny(4096), nil, "no sections"},
		"long name":   {tiny(4096), []Section{{".verylong", []byte("x")}}, "name"},
		"twice":       {tiny(4096), append(one[:1:1], one[0]), "twice"},
		"in the stub": {tiny(4096), []Section{{".text", []byte("x")}}, "twice"},
		"empty":       {tiny(4096), []Section{{".osrel", nil}}, "empty"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := UKI(c.stub, c.sections); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// FuzzUKI: no stub, however damaged, may crash the build.
func FuzzUKI(f *testing.F) {
	f.Add(tiny(4096))
	f.Add(tiny(512))
	f.Fuzz(func(_ *testing.T, stub []byte) {
		_, _ = UKI(stub, sections[:3])
	})
}
