package output

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

func TestVHD(t *testing.T) {
	m := made(t)
	file := write(t, m, "vhd", "master.vhd")
	disktest.Compare(t, m.Disk, "driver=vpc,file.filename="+file)
	info, err := os.Stat(file)
	if err != nil || info.Size() != 20*mib+512 {
		t.Errorf("%v; %d bytes", err, info.Size())
	}
	if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; blocks > 8*mib {
		t.Errorf("%d bytes on the disk: the holes are filled", blocks)
	}
}

// TestVHDFooter holds the footer against QEMU's, for sizes with each kind of geometry.
func TestVHDFooter(t *testing.T) {
	for _, size := range []int64{mib, 20 * mib, 300 * mib, 1 << 30, 40 << 30, 200 << 30} {
		file := filepath.Join(t.TempDir(), "disk.vhd")
		disktest.Tool(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed,force_size=on", file, strconv.FormatInt(size, 10))
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		want, got := make([]byte, 512), footer(size, repro.UUID("test"))
		if _, err := f.ReadAt(want, size); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		for name, at := range map[string][2]int{"head": {0, 24}, "sizes": {40, 56}, "type": {60, 64}, "rest": {84, 512}} {
			if !bytes.Equal(got[at[0]:at[1]], want[at[0]:at[1]]) {
				t.Errorf("%d bytes, %s: %x, QEMU has %x", size, name, got[at[0]:at[1]], want[at[0]:at[1]])
			}
		}
	}
}

// TestVHDGeometry has the specification's own steps, at their edges.
func TestVHDGeometry(t *testing.T) {
	for sectors, want := range map[int64][3]int{
		1 << 11: {30, 4, 17}, 40960: {602, 4, 17}, 17 * 16 * 1024: {561, 16, 31}, 31 * 16 * 1024: {503, 16, 63},
		65535 * 16 * 63: {16191, 16, 255}, 1 << 40: {65535, 16, 255},
	} {
		b := geometry(sectors)
		if got := [3]int{int(binary.BigEndian.Uint16(b)), int(b[2]), int(b[3])}; got != want {
			t.Errorf("%d sectors: %v, want %v", sectors, got, want)
		}
	}
}

func TestVHDRefused(t *testing.T) {
	m := made(t)
	for _, size := range []int64{mib + 512, maxVHD + mib} {
		if err := os.Truncate(m.Disk, size); err != nil {
			t.Fatal(err)
		}
		if err := writeVHD(t.Context(), m, filepath.Join(t.TempDir(), "out"), false); err == nil || !strings.Contains(err.Error(), "whole MiB") {
			t.Error(err)
		}
	}
}
