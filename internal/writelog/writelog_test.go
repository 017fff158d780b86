package writelog

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

// record makes a log by hand, as the format says.
func record(entries ...[]uint64) []byte {
	le := binary.LittleEndian
	out := make([]byte, 512)
	le.PutUint64(out, magic)
	le.PutUint64(out[8:], version)
	le.PutUint64(out[16:], uint64(len(entries)))
	le.PutUint32(out[24:], 512)
	for i, e := range entries {
		head := make([]byte, 512)
		for j, v := range e {
			le.PutUint64(head[8*j:], v)
		}
		out = append(out, head...)
		if e[2]&flagDiscard == 0 {
			out = append(out, bytes.Repeat([]byte{byte('a' + i)}, int(e[1])*512)...)
		}
	}
	return out
}

// memory is a disk.
type memory []byte

func (m memory) WriteAt(p []byte, at int64) (int, error) { return copy(m[at:], p), nil }

func (m memory) String() string {
	var out []byte
	for i := 0; i < len(m); i += 512 {
		out = append(out, max('.', m[i]))
	}
	return string(out)
}

func TestReplay(t *testing.T) {
	data := record([]uint64{0, 2, 0}, []uint64{4, 1, 0}, []uint64{0, 0, flagFlush}, []uint64{1, 3, flagFUA}, []uint64{0, 1, flagDiscard}, []uint64{5, 1, flagFlush})
	l, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Flushes(); len(l.Entries) != 6 || len(got) != 2 || got[0] != 2 || got[1] != 5 {
		t.Errorf("%d entries, flushes %v", len(l.Entries), got)
	}
	for to, want := range map[int]string{0: "......", 1: "aa....", 3: "aa..b.", 4: "addd" + "b.", 5: ".dddb.", 6: ".dddbf"} {
		disk := make(memory, 6*512)
		if err := l.Replay(disk, 0, to, nil); err != nil || disk.String() != want {
			t.Errorf("up to %d: %s, want %s (%v)", to, disk, want, err)
		}
	}
	disk := make(memory, 6*512)
	if err := l.Replay(disk, 0, 6, func(i int, _ Entry) bool { return i%2 == 0 }); err != nil || disk.String() != ".a...." {
		t.Errorf("every other one: %s, %v", disk, err)
	}
	for cut, want := range map[int]int{512: 0, 1024: 0, 2000: 0, 2048: 1, len(data) - 1: 5} {
		if l, err := Open(bytes.NewReader(data[:cut]), int64(cut)); err != nil || len(l.Entries) != want {
			t.Errorf("cut at %d: %v, %v", cut, l, err)
		}
	}
}

func TestBadRecords(t *testing.T) {
	wrongMagic, wrongSector, far := record(), record(), record([]uint64{1 << 60, 1, 0})
	wrongMagic[0], wrongSector[24], wrongSector[25] = 0, 1, 0
	for name, data := range map[string][]byte{"no head": nil, "no record": wrongMagic, "no record, sector": wrongSector, "outside any disk": far} {
		want, _, _ := strings.Cut(name, ",")
		if _, err := Open(bytes.NewReader(data), int64(len(data))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(record([]uint64{0, 2, 0}, []uint64{4, 1, flagDiscard}, []uint64{0, 0, flagFlush}))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if l, err := Open(bytes.NewReader(data), int64(len(data))); err == nil {
			l.Flushes()
		}
	})
}

// TestQEMU has the real writer of the format make a record.
func TestQEMU(t *testing.T) {
	if _, err := run.Look("qemu-io"); err != nil {
		t.Skip("the host has no qemu-io")
	}
	dir := t.TempDir()
	disk, log := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	must(t, os.WriteFile(disk, make([]byte, 1<<20), 0o600))
	must(t, os.WriteFile(log, nil, 0o600))
	must(t, run.Run(t.Context(), run.Cmd{Name: "qemu-io", Args: []string{"-c", "write -P 0x61 0 4096", "-c", "flush", "-c", "write -P 0x62 8192 512", "-c", "write -z 512 512",
		"--image-opts", "driver=blklogwrites,file.driver=file,file.filename=" + disk + ",log.driver=file,log.filename=" + log}}))
	f, err := os.Open(log)
	must(t, err)
	defer f.Close()
	info, err := f.Stat()
	must(t, err)
	l, err := Open(f, info.Size())
	must(t, err)
	made := make(memory, 1<<20)
	must(t, l.Replay(made, 0, len(l.Entries), nil))
	want, err := os.ReadFile(disk)
	must(t, err)
	if !bytes.Equal(made, want) || len(l.Flushes()) == 0 || want[0] != 'a' || want[8192] != 'b' {
		t.Errorf("the replay differs from the disk; entries %+v", l.Entries)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
