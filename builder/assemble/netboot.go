package assemble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/pe"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// Netboot writes the image that boots by network alone into the scratch folder dir: the
// UKI of the disk, whose initrd carries the sealed root as well. The root is never in
// memory as a whole.
func Netboot(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, s *Sealed, dir string) (file string, err error) {
	file = filepath.Join(dir, "netboot.efi")
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) // #nosec G304 -- our own scratch file
	if err != nil {
		return "", err
	}
	err = errors.Join(s.netboot(ctx, p, root, k, out), out.Close())
	if err != nil {
		return "", fmt.Errorf("assembling the image for network boot: %w", err)
	}
	return file, nil
}

func (s *Sealed) netboot(ctx context.Context, p *plan.Plan, root *tree.Tree, k rootfs.Kernel, out *os.File) error {
	stub, sections, err := parts(p, root, k, s.hash)
	if err != nil {
		return err
	}
	head, _, err := pe.Begin(stub, sections, netboot.Section, 1) // as long as with the size that is not known yet
	if err != nil {
		return err
	}
	initrd := &counted{w: io.NewOffsetWriter(out, int64(len(head)))}
	if err := s.packAll(ctx, initrd, root, k); err != nil {
		return err
	}
	head, tail, err := pe.Begin(stub, sections, netboot.Section, initrd.n)
	if err != nil {
		return err
	}
	_, err = out.WriteAt(head, 0)
	return errors.Join(err, out.Truncate(int64(len(head))+initrd.n+int64(tail)))
}

// packAll writes the initrd: the slot, that of a disk, and the root with its tree. The
// kernel takes one archive after the other, each packed as one frame.
func (s *Sealed) packAll(ctx context.Context, w io.Writer, root *tree.Tree, k rootfs.Kernel) error {
	slot, err := netboot.Fill(nil)
	if err != nil {
		return err
	}
	for _, part := range [][]byte{slot, s.initrd} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	a := netboot.Archive{W: cpio.NewWriter(stoppable{ctx, z})}
	if err := loopDevice(&a, root, k.Release); err != nil {
		return err
	}
	a.Copy(netboot.Root, 0o400, s.dataSize, io.NewSectionReader(s.disk, s.dataAt, s.dataSize))
	a.Copy(netboot.Tree, 0o400, s.treeSize, io.NewSectionReader(s.disk, s.treeAt, s.treeSize))
	return errors.Join(a.Close(), z.Close())
}

// stoppable is a writer that ends with its context.
type stoppable struct {
	ctx context.Context
	w   io.Writer
}

func (s stoppable) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

// loopDevice adds the kernel's loop device where it is a module: a file in memory becomes
// a disk by it.
func loopDevice(a *netboot.Archive, root *tree.Tree, release string) error {
	m := kernel{root: root, dir: path.Join("usr/lib/modules", release)}
	if err := m.read(); err != nil || m.builtin["loop"] {
		return err
	}
	file := m.files["loop"]
	if file == "" || len(m.deps["loop"]) > 0 {
		return fmt.Errorf("kernel %s has no loop device that stands alone", release)
	}
	data, err := root.ReadFile(path.Join(m.dir, file))
	_, packing, _ := strings.Cut(path.Base(file), ".ko")
	a.File(netboot.Loop+packing, 0o400, data)
	return err
}

// counted counts what passes.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
