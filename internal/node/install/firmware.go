package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf16"

	"github.com/imgbuild/imgbuild/internal/arch"
)

// UEFI's variables, as efivarfs has them: four bytes of attributes, and the content.
const (
	variables  = "sys/firmware/efi/efivars"
	global     = "-8be4df61-93ca-11d2-aa0d-00e098032b8c" // EFI_GLOBAL_VARIABLE
	attributes = 7                                       // not volatile, in boot services and at run time
)

// bootFrom puts the disk first in firmware's boot order (UEFI specification, section 3.1.1):
// a medium that is left in does not boot again.
func (a *Installer) bootFrom(disk string) error {
	table, err := a.readDisk(disk, 1024, 128) // the first entry, of the EFI system partition
	if err != nil {
		return err
	}
	entry, number := loadOption(table), -1
	for n := 0; n < 0x1000 && number < 0; n++ {
		have, err := os.ReadFile(a.variable(fmt.Sprintf("Boot%04X", n))) // #nosec G304 -- efivarfs
		switch {
		case errors.Is(err, os.ErrNotExist), err == nil && len(have) > 4 && bytes.Equal(have[4:], entry):
			number = n
		case err != nil:
			return err
		}
	}
	order, err := os.ReadFile(a.variable("BootOrder"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	first := binary.LittleEndian.AppendUint16(nil, uint16(number)) // #nosec G115 -- bounded above
	want := bytes.Clone(first)
	for rest := order[min(len(order), 4):]; len(rest) > 1; rest = rest[2:] {
		if !bytes.Equal(rest[:2], first) {
			want = append(want, rest[:2]...)
		}
	}
	return errors.Join(a.setVariable(fmt.Sprintf("Boot%04X", number), entry), a.setVariable("BootOrder", want))
}

func (a *Installer) variable(name string) string {
	return filepath.Join(a.Root, variables, name+global)
}

// setVariable writes it in one call, as efivarfs wants.
func (a *Installer) setVariable(name string, content []byte) error {
	return os.WriteFile(a.variable(name), append(binary.LittleEndian.AppendUint32(nil, attributes), content...), 0o644) // #nosec G306 -- as efivarfs has them
}

// loadOption is an EFI_LOAD_OPTION for the boot loader in the partition of a table's entry.
func loadOption(entry []byte) []byte {
	le := binary.LittleEndian
	start, end := le.Uint64(entry[32:]), le.Uint64(entry[40:])
	path := append([]byte{4, 1}, le.AppendUint16(nil, 42)...) // a partition, section 10.3.5.1
	path = le.AppendUint32(path, 1)
	path = le.AppendUint64(path, start)
	path = le.AppendUint64(path, end-start+1)
	path = append(append(path, entry[16:32]...), 2, 2) // of a GPT, by its GUID
	names, _ := arch.Of(runtime.GOARCH)                // an image is for one of them
	file := wide(`\` + strings.ReplaceAll(names.Loader(), "/", `\`))
	path = append(append(path, 4, 4), le.AppendUint16(nil, uint16(4+len(file)))...) // #nosec G115 -- a constant
	path = append(append(path, file...), 0x7f, 0xff, 4, 0)
	option := le.AppendUint32(nil, 1)                   // active
	option = le.AppendUint16(option, uint16(len(path))) // #nosec G115 -- as above
	return append(append(option, wide("imgbuild")...), path...)
}

// wide is a text in UCS-2 with a final zero.
func wide(text string) (out []byte) {
	for _, c := range append(utf16.Encode([]rune(text)), 0) {
		out = binary.LittleEndian.AppendUint16(out, c)
	}
	return out
}
