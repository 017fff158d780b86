package faults

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/writelog"
	"github.com/imgbuild/imgbuild/test/kit"
)

// diskSize is that of the machines' disks.
const diskSize = 24 << 30

// replay is a disk made anew from the record of what a machine wrote to it.
type replay struct {
	log  *writelog.Log
	disk *os.File
	done int // entries that are on the disk
}

// newReplay begins with the image, to which nothing was written.
func newReplay(ctx context.Context, t *testing.T, image, record, disk string) *replay {
	t.Helper()
	kit.Must(t, run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"--sparse=always", "--reflink=auto", image, disk}}))
	log, err := os.Open(record)
	kit.Must(t, err)
	t.Cleanup(func() { _ = log.Close() })
	info, err := log.Stat()
	kit.Must(t, err)
	p := &replay{}
	p.log, err = writelog.Open(log, info.Size())
	kit.Must(t, err)
	p.disk, err = os.OpenFile(disk, os.O_RDWR, 0o600)
	kit.Must(t, err)
	t.Cleanup(func() { _ = p.disk.Close() })
	kit.Must(t, p.disk.Truncate(diskSize))
	return p
}

// upTo writes all that was there at a flush.
func (p *replay) upTo(flush int) error {
	err := p.log.Replay(p.disk, p.done, flush, nil)
	p.done = flush
	return err
}

// tail writes by chance some of what came between the last flush and the next one:
// a disk may have written it, in any order, when the power went.
func (p *replay) tail(r *rand.Rand) error {
	end := p.done + 1
	for end < len(p.log.Entries) && !p.log.Entries[end].Flush {
		end++
	}
	end = min(end, len(p.log.Entries))
	err := p.log.Replay(p.disk, p.done, end, func(int, writelog.Entry) bool { return r.Intn(2) == 0 })
	p.done = end
	return err
}

// relive makes a machine's disk anew as its power cut may have left it: all that was
// written up to the last flush, and of what came after it some writes and not others.
// It looks at points more on the way there, and returns the image to boot.
func (s *site) relive(t *testing.T, name, record string, points int, r *rand.Rand) (image string, looked int) {
	t.Helper()
	image = filepath.Join(s.Dir, name+"-replayed.raw")
	p := newReplay(t.Context(), t, s.images[machines[name].Image], record, image)
	flushes := p.log.Flushes()
	if len(flushes) < points+1 {
		t.Fatalf("the record of %s has %d flushes", name, len(flushes))
	}
	end := len(flushes) - 1
	r.Shuffle(end, func(i, j int) { flushes[i], flushes[j] = flushes[j], flushes[i] })
	chosen := append(slices.Sorted(slices.Values(flushes[:points])), flushes[end])
	last := firstboot.Fresh
	for i, flush := range chosen {
		kit.Must(t, p.upTo(flush))
		phase, err := look(t.Context(), p.disk, filepath.Join(s.Dir, name+"-var.raw"))
		if err != nil {
			t.Errorf("%s: the disk at flush %d (%d of %d writes): %v", name, flush, p.done, len(p.log.Entries), err)
		}
		if rank(phase) < rank(last) {
			t.Errorf("%s: at flush %d the journal says %s, and said %s before", name, flush, phase, last)
		}
		if last = phase; i < points {
			looked++
		}
	}
	kit.Must(t, p.tail(r))
	s.Told(t, "%s: the disk as it was after %d of %d writes, when its journal said %q; %d points on the way are sound", name, p.done, len(p.log.Entries), last, looked)
	for _, file := range []string{"disk.qcow2", "disk.base"} {
		kit.Must(t, os.Remove(filepath.Join(s.dir(name), file)))
	}
	return image, looked
}

func rank(p firstboot.Phase) int {
	return slices.Index([]firstboot.Phase{firstboot.Fresh, firstboot.Dirty, firstboot.Published, firstboot.Committed}, p)
}

// look judges /var of a disk by e2fsprogs: its file system is sound once its journal
// is replayed, the agent's record is whole, and a committed node has all its files.
func look(ctx context.Context, disk *os.File, scratch string) (firstboot.Phase, error) {
	start, size, err := varPartition(ctx, disk.Name())
	if err != nil || size == 0 {
		return firstboot.Fresh, err
	}
	if err := extract(disk, start, size, scratch); err != nil {
		return "", err
	}
	defer os.Remove(scratch)
	var failed *exec.ExitError
	out, err := run.Output(ctx, run.Cmd{Name: "e2fsck", Args: []string{"-f", "-p", scratch}})
	if errors.As(err, &failed) && failed.ExitCode() == 1 {
		err = nil // its journal was replayed, orphans were let go: what the kernel does at mount
	}
	if err != nil {
		return "", fmt.Errorf("e2fsck: %w\n%s", err, out)
	}
	dir, err := os.MkdirTemp(filepath.Dir(scratch), "var-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, folder := range []string{"/lib/imgbuild", "/lib/kubelet/pki"} {
		if _, err := run.Output(ctx, run.Cmd{Name: "debugfs", Args: []string{"-R", "rdump " + folder + " " + dir, scratch}}); err != nil {
			return "", err
		}
	}
	return judge(dir)
}

// judge reads the agent's record, and wants no torn file where it says committed.
func judge(dir string) (firstboot.Phase, error) {
	data, err := os.ReadFile(filepath.Join(dir, "imgbuild/firstboot/journal.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return firstboot.Fresh, nil
	}
	var j firstboot.Journal
	if err == nil {
		err = json.Unmarshal(data, &j)
	}
	if err == nil && rank(j.Phase) < 0 {
		err = fmt.Errorf("it says %q", j.Phase)
	}
	if err != nil || j.Phase != firstboot.Committed {
		return j.Phase, err
	}
	certs := 0
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(file, ".crt") && !strings.HasSuffix(file, ".conf") && !strings.HasSuffix(file, ".key") {
			return err
		}
		text, err := os.ReadFile(file)
		if err == nil && len(text) == 0 {
			err = fmt.Errorf("%s is empty", file)
		}
		if block, _ := pem.Decode(text); err == nil && strings.HasSuffix(file, ".crt") {
			if block == nil {
				return fmt.Errorf("%s is torn", file)
			}
			_, err = x509.ParseCertificate(block.Bytes)
			certs++
		}
		return err
	})
	if err == nil && certs == 0 {
		err = errors.New("a committed node without a certificate")
	}
	return j.Phase, err
}

// varPartition finds /var's partition, bytes; a size of 0: there is none yet.
func varPartition(ctx context.Context, disk string) (start, size int64, err error) {
	text, err := run.Output(ctx, run.Cmd{Name: "sfdisk", Args: []string{"--json", disk}})
	if err != nil {
		return 0, 0, err
	}
	var table struct {
		PartitionTable struct {
			SectorSize int64
			Partitions []struct {
				Start, Size int64
				Name        string
			}
		}
	}
	if err := json.Unmarshal(text, &table); err != nil {
		return 0, 0, err
	}
	for _, p := range table.PartitionTable.Partitions {
		if p.Name == "imgbuild-var" {
			return p.Start * table.PartitionTable.SectorSize, p.Size * table.PartitionTable.SectorSize, nil
		}
	}
	return 0, 0, nil
}

// extract copies a range of a sparse file into a sparse file.
func extract(disk *os.File, start, size int64, to string) error {
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := start; at < start+size; {
		data, err := unix.Seek(int(disk.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || data >= start+size {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(disk.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		hole = min(hole, start+size)
		if _, err := io.Copy(io.NewOffsetWriter(out, data-start), io.NewSectionReader(disk, data, hole-data)); err != nil {
			return err
		}
		at = hole
	}
	return nil
}

// recorded makes a machine record what it writes to its disk.
func recorded(file string) func(*boottest.Node) {
	return func(n *boottest.Node) { n.WriteLog = file }
}
