package stamp

import (
	"bytes"
	"debug/pe"
	"io"
	"os"
	"path"
	"strings"

	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/gpt"
	"github.com/imgbuild/imgbuild/internal/medium"
	"github.com/imgbuild/imgbuild/internal/qcow2"
	"github.com/imgbuild/imgbuild/internal/qcowview"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// pageSize is the piece in which a disk is changed, bytes: a cluster of qcow2.
const pageSize = qcow2.ClusterSize

// disk is an image of a node, whose EFI system partition has been read.
type disk struct {
	f       *os.File
	qcow2   bool
	start   int64 // of the partition
	part    *io.SectionReader
	files   map[string]tree.Content
	options esp.Options
	image   *io.SectionReader // what an install medium writes to a disk; nil: it is none
}

// open reads an image's table and the files in its EFI system partition.
func open(f *os.File) (*disk, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	d := &disk{f: f}
	whole, size := io.ReaderAt(f), info.Size()
	if magic := make([]byte, 4); size > 4 {
		if _, err := f.ReadAt(magic, 0); err != nil {
			return nil, err
		}
		d.qcow2 = string(magic) == "QFI\xfb"
	}
	if d.qcow2 {
		if err := qcow2.Plain(f); err != nil {
			return nil, fault.Wrap(fault.Verify, err)
		}
		if whole, size, err = qcowview.Open(f); err != nil {
			return nil, fault.Wrap(fault.Verify, err)
		}
	}
	table, err := gpt.Read(io.NewSectionReader(whole, 0, size))
	if err != nil {
		return nil, fault.New(fault.Verify, "it is no disk image, raw or qcow2, of a node: %w", err)
	}
	for _, p := range table.Partitions {
		switch {
		case p.TypeGUID == gpt.TypeESP:
			d.start, d.part = p.Start, io.NewSectionReader(whole, p.Start, p.Size)
		case p.Name == medium.Partition:
			d.image = io.NewSectionReader(whole, p.Start, p.Size)
		}
	}
	if d.part == nil || d.part.Size() < esp.MinSize || d.part.Size() > esp.MaxSize || d.start%pageSize != 0 || d.part.Size()%pageSize != 0 {
		return nil, fault.New(fault.Verify, "it has no EFI system partition as imgbuild makes them")
	}
	if d.files, d.options, err = esp.Read(d.part); err != nil {
		return nil, fault.Wrap(fault.Verify, err)
	}
	return d, nil
}

// role is the role whose image it is, by the kernel image's os-release.
func (d *disk) role() (string, error) {
	for name, content := range d.files {
		if path.Dir(name) != "EFI/Linux" || !strings.HasSuffix(name, ".efi") {
			continue
		}
		r, err := content.Open()
		if err != nil {
			return "", err
		}
		defer r.Close() //nolint:errcheck // read only
		all, err := io.ReadAll(io.LimitReader(r, maxUKI))
		if err != nil {
			return "", err
		}
		uki, err := pe.NewFile(bytes.NewReader(all))
		if err == nil {
			var role string
			if role, err = roleOf(uki); err == nil {
				return role, nil
			}
		}
		return "", fault.New(fault.Verify, "%s: %w", name, err)
	}
	return "", fault.New(fault.Verify, "it has no kernel image of imgbuild's")
}

// maxUKI bounds what is read of a kernel image, bytes.
const maxUKI = 256 << 20

// write puts pages into the partition: offset in it → content.
func (d *disk) write(pages map[int64][]byte) error {
	if d.qcow2 {
		clusters := map[int64][]byte{}
		for at, page := range pages {
			clusters[d.start+at] = page
		}
		return qcow2.Patch(d.f, clusters)
	}
	for at, page := range pages {
		if _, err := d.f.WriteAt(page, d.start+at); err != nil {
			return err
		}
	}
	return nil
}
