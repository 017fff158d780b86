package iso9660

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

const mib = 1 << 20

// framed is a volume of 40 MiB with a readme, a boot image, and a file that lies there.
func framed(t *testing.T, size int64) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "medium.iso")
	f, err := os.Create(dst)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("the image"), 3*mib)
	boot := File{Name: "EFI.IMG", At: mib, Size: 2 * mib}
	if err := errors.Join(err, f.Truncate(size), Frame(f, "IMGBUILD_WORKER", size, boot, File{Name: "README.TXT", Data: []byte("read me\n")}, File{Name: "DISK.RAW", At: 3 * mib, Size: size - 4*mib})); err != nil {
		t.Fatal(err)
	}
	return dst
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: name, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestFrame asks xorriso and isoinfo.
func TestFrame(t *testing.T) {
	dst := framed(t, 40*mib)
	boot := output(t, "xorriso", "-indev", dst, "-report_el_torito", "plain")
	for _, want := range []string{
		`El Torito catalog *: 19 +1\n`,
		`El Torito boot img *: +1 +UEFI +y +none +0x0000 +0x00 +4096 +512\n`,
		`El Torito img path *: +1 +/EFI.IMG\n`,
	} {
		if !regexp.MustCompile(want).MatchString(boot) {
			t.Errorf("xorriso does not say %q:\n%s", want, boot)
		}
	}
	list := output(t, "isoinfo", "-l", "-i", dst)
	for _, want := range []string{`2097152 Jan  1 2026 \[ +512 00\]  EFI.IMG;1`, `37748736 Jan  1 2026 \[ +1536 00\]  DISK.RAW;1`, `8 Jan  1 2026 \[ +23 00\]  README.TXT;1`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("isoinfo does not say %q:\n%s", want, list)
		}
	}
	if volume := output(t, "isoinfo", "-d", "-i", dst); !strings.Contains(volume, "Volume id: IMGBUILD_WORKER\n") || !strings.Contains(volume, "Volume size is: 20480\n") {
		t.Error(volume)
	}
	if text := output(t, "isoinfo", "-x", "/README.TXT;1", "-i", dst); text != "read me\n" {
		t.Errorf("README.TXT: %q", text)
	}
	if text := output(t, "isoinfo", "-x", "/DISK.RAW;1", "-i", dst); len(text) != 36*mib || !strings.HasPrefix(text, "the image\x00") {
		t.Errorf("DISK.RAW: %d bytes", len(text))
	}
	a, err := os.ReadFile(dst)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(framed(t, 40*mib)); err != nil || !bytes.Equal(a, b) {
		t.Errorf("two runs differ (%v)", err)
	}
	if strings.Trim(string(a[:32<<10]), "\x00") != "" {
		t.Error("it writes where a partition table is")
	}
}

// TestFrameLarge has a file that takes two entries.
func TestFrameLarge(t *testing.T) {
	list := output(t, "xorriso", "-indev", framed(t, 5<<30), "-find", "/", "-name", "DISK.RAW", "-exec", "report_lba")
	for _, want := range []string{`File data lba: *0 , *1536 , *2097151 , *5364514816 , '/DISK.RAW'`, `File data lba: *1 , *2098687 , *522241 , *5364514816 , '/DISK.RAW'`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("xorriso does not say %q:\n%s", want, list)
		}
	}
}

func TestFrameRefuses(t *testing.T) {
	boot := File{Name: "EFI.IMG", At: mib, Size: mib}
	for want, err := range map[string]error{
		`label "small"`:           Frame(nil, "small", 40*mib, boot),
		"1048577 bytes":           Frame(nil, "X", mib+1, boot),
		`"readme" is no name`:     Frame(nil, "X", 40*mib, boot, File{Name: "readme", Data: []byte("x")}),
		"do not lie in it":        Frame(nil, "X", 40*mib, File{Name: "EFI.IMG", At: 39 * mib, Size: 2 * mib}),
		"files up to 1095680 do ": Frame(nil, "X", 40*mib, boot, File{Name: "A", Data: make([]byte, mib)}),
		"no room":                 Frame(full{}, "X", 40*mib, boot),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

type full struct{ io.WriterAt }

func (full) WriteAt([]byte, int64) (int, error) { return 0, errors.New("no room") }
