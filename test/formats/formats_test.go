// Package formats has every format of the disk made twice, read by what did not write it,
// and booted. `make formats` writes what came of it into docs/formats.md.
package formats

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

var update = flag.Bool("update", false, "write the table into docs/formats.md")

const page = "../../docs/formats.md"

// limit is how long a machine may take to be up, on emulated processors.
const limit = 15 * time.Minute

// same is a script in which qemu-img wants the image $1 of a format to be the disk $2.
func same(format string) string { return `qemu-img compare -q -f ` + format + ` -F raw "$1" "$2"; ` }

const (
	check = `qemu-img check -q "$1"; `
	// unpackOCI puts the disk of the container image $1 into the folder $3.
	unpackOCI = `skopeo copy -q --insecure-policy "oci-archive:$1" "dir:$3/image"
for l in "$3"/image/*; do if tar -tf "$l" disk >/dev/null 2>&1; then tar -xf "$l" -C "$3"; fi; done; mv "$3/disk/worker.qcow2" "$3/worker.qcow2"; rm -r "$3/image"; `
)

// formats are the ways to a disk.
var formats = []struct {
	name     string // as imgbuild has it
	tail     string // of the file's name, beyond that
	packed   bool   // --compress
	readers  string // what did not write it
	reads    string // script that wants $1 to be the disk $2, and has the folder $3
	unpacked string // the file in $3 that a machine boots from; empty: $1 itself
}{
	{name: "raw", readers: "sgdisk, fsck.vfat", reads: `sgdisk -v "$1" | grep -q "No problems found"; dd if="$1" of="$3/esp" bs=512 skip="$(partx -go START -n 1 "$1")" count="$(partx -go SECTORS -n 1 "$1")" status=none; fsck.vfat -n "$3/esp" >/dev/null; rm "$3/esp"`},
	{name: "qcow2", readers: "qemu-img", reads: check + same("qcow2")},
	{name: "qcow2", packed: true, readers: "qemu-img", reads: check + same("qcow2")},
	{name: "raw.zst", readers: "zstd", reads: `zstd -qd "$1" -o "$3/worker.raw"; cmp "$3/worker.raw" "$2"`, unpacked: "worker.raw"},
	{name: "raw.gz", readers: "gzip", reads: `gzip -dc "$1" >"$3/worker.raw"; cmp "$3/worker.raw" "$2"`, unpacked: "worker.raw"},
	{name: "vmdk", readers: "qemu-img", reads: check + same("vmdk")},
	{name: "ova", readers: "tar, sha256sum, xmllint, qemu-img", unpacked: "worker.vmdk", reads: `tar -xf "$1" -C "$3"; cd "$3"
sed -E 's/^SHA256\((.*)\)= *(.*)$/\2  \1/' ./*.mf | sha256sum -c --quiet; xmllint --noout ./*.ovf; mv ./*.vmdk x; mv x worker.vmdk; shift; set -- worker.vmdk "$@"; ` + same("vmdk")},
	{name: "vhd", readers: "qemu-img", reads: same("vpc")},
	{name: "vhdx", readers: "qemu-img", reads: check + same("vhdx")},
	{name: "gce", tail: ".tar.gz", readers: "tar, sgdisk", unpacked: "disk.raw", // the same disk between the two ends, which are a larger table's
		reads: `tar -xzf "$1" -C "$3"; sgdisk -v "$3/disk.raw" | grep -q "No problems found"; cmp -i 17408 -n "$(($(stat -c %s "$2") - 34304))" "$3/disk.raw" "$2"`},
	{name: "containerdisk", tail: ".tar", readers: "skopeo, tar, qemu-img", unpacked: "worker.qcow2", reads: unpackOCI + `shift; set -- "$2/worker.qcow2" "$1"; ` + check + same("qcow2")},
}

func TestFormats(t *testing.T) {
	if testing.Short() {
		t.Skip("boots eleven machines: left out by -short")
	}
	s := kit.NewSite(t)
	plain, again, packed := filepath.Join(s.Dir, "out"), filepath.Join(s.Dir, "again"), filepath.Join(s.Dir, "packed")
	var names []string
	for _, f := range formats {
		if !f.packed {
			names = append(names, f.name)
		}
	}
	build := func(dir, formats string, more ...string) {
		began := repro.Now()
		_, err := s.Imgbuild(t.Context(), append([]string{"worker", "-o", dir, "--format", formats}, more...)...)
		kit.Must(t, err)
		s.Told(t, "%s in %.1f s", formats, repro.Now().Sub(began).Seconds())
	}
	build(plain, strings.Join(names, ","))
	build(packed, "qcow2", "--compress")
	kit.Must(t, os.MkdirAll(again, 0o700))
	var rows bytes.Buffer
	for i, f := range formats {
		t.Run(fmt.Sprintf("%s %d", f.name, i), func(t *testing.T) {
			dir, how, name := plain, []string{}, "`"+f.name+"`"
			if f.packed {
				dir, how, name = packed, []string{"--compress"}, "`"+f.name+"`, compressed"
			}
			file := filepath.Join(dir, "worker."+f.name+f.tail)
			build(again, f.name, how...)
			if second := filepath.Join(again, filepath.Base(file)); digest(t, file) != digest(t, second) {
				t.Error("a second build gives another file")
			} else {
				kit.Must(t, os.Remove(second))
			}
			scratch := t.TempDir()
			kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "sh", Args: []string{"-ec", f.reads, "sh", file, filepath.Join(plain, "worker.raw"), scratch}, Stderr: os.Stderr}))
			if f.unpacked != "" {
				file = filepath.Join(scratch, f.unpacked)
			}
			m := s.Start(t, boottest.Node{Name: fmt.Sprintf("%s-%d", f.name, i), Image: file, IP: kit.WorkerIP, Memory: 1536, CPUs: 2})
			s.Until(t, limit, name+" is up", m, `systemctl is-active -q containerd.service && test "$(findmnt -no FSTYPE /)" = erofs`)
			kit.Must(t, m.Kill())
			fmt.Fprintf(&rows, "| %s | %s | yes | yes |\n", name, f.readers)
		})
	}
	if *update && !t.Failed() {
		kit.Must(t, write(rows.String()))
	}
}

func digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	kit.Must(t, err)
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	kit.Must(t, err)
	return string(sum.Sum(nil))
}

// write puts the table between its marks on the page.
func write(rows string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	const from, to = "<!-- make formats -->\n", "<!-- /make formats -->"
	before, rest, ok1 := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: no place for the table", page)
	}
	table := "| format | read by | made twice, the same bytes | booted |\n|---|---|---|---|\n" + rows
	return os.WriteFile(page, []byte(before+from+table+"\n"+to+after), 0o644)
}
