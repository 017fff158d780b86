package stamp

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/netboot"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Netboot is an image for network boot, which is stamped as it is handed out.
type Netboot struct {
	f          *os.File
	role       string
	cmdline    string
	slot, size int64
}

// OpenNetboot opens the file that the format netboot leaves. The caller closes it.
func OpenNetboot(file string) (*Netboot, error) {
	f, err := os.Open(file) // #nosec G304 -- the image that the caller names
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err)
	}
	n := &Netboot{f: f}
	if err := n.read(); err != nil {
		return nil, errors.Join(fault.New(fault.Verify, "%s: %w", file, err), f.Close())
	}
	return n, nil
}

func (n *Netboot) read() error {
	info, err := n.f.Stat()
	if err != nil {
		return err
	}
	n.size = info.Size()
	if n.slot, err = netboot.Find(n.f); err != nil {
		return err
	}
	f, err := pe.NewFile(n.f)
	if err != nil {
		return err
	}
	if n.role, err = roleOf(f); err != nil {
		return err
	}
	cmdline := f.Section(".cmdline")
	if cmdline == nil {
		return errors.New("it has no kernel command line")
	}
	words, err := cmdline.Data()
	if err != nil {
		return err
	}
	n.cmdline = string(bytes.TrimRight(words, "\x00"))
	slot := make([]byte, netboot.Slot)
	if _, err := n.f.ReadAt(slot, n.slot); err != nil {
		return err
	}
	if have, err := netboot.Credentials(slot); err != nil || len(have) > 0 {
		return errors.Join(err, fmt.Errorf("it carries %d credentials: a copy for one machine", len(have)))
	}
	return nil
}

// Role is the role whose image it is.
func (n *Netboot) Role() string { return n.role }

// Cmdline is the kernel's command line.
func (n *Netboot) Cmdline() string { return n.cmdline }

// Size is the file's, in bytes; stamped it is the same.
func (n *Netboot) Size() int64 { return n.size }

// Close closes the file.
func (n *Netboot) Close() error { return n.f.Close() }

// Reader is the image with a stamp, and with more credentials. Each reader stands alone.
// What does not fit is an error, as is the node config of another role.
func (n *Netboot) Reader(s Stamp, more map[string][]byte) (io.ReadSeeker, error) {
	credentials, err := s.credentials()
	if err != nil {
		return nil, err
	}
	if len(s.Config) > 0 {
		c, err := config.Parse(s.Config)
		if err != nil {
			return nil, fault.Wrap(fault.Spec, err)
		}
		if c.Role != n.role {
			return nil, fault.New(fault.Spec, "it is a %s's image, the node config is a %s's", n.role, c.Role)
		}
	}
	maps.Copy(credentials, more)
	slot, err := netboot.Fill(credentials)
	if err != nil {
		return nil, fault.Wrap(fault.Spec, err)
	}
	return io.NewSectionReader(overlaid{n.f, bytes.NewReader(slot), n.slot}, 0, n.size), nil
}

// overlaid is a file in which other bytes stand at one place.
type overlaid struct {
	file io.ReaderAt
	over *bytes.Reader
	at   int64
}

// ReadAt implements io.ReaderAt.
func (o overlaid) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.file.ReadAt(p, off)
	if from := o.at - off; from < int64(n) && o.at+o.over.Size() > off {
		to := p[max(0, from):n]
		if _, err := o.over.ReadAt(to, max(0, -from)); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
	return n, err
}

// roleOf is the role that a kernel image's os-release names.
func roleOf(f *pe.File) (string, error) {
	s := f.Section(".osrel")
	if s == nil || s.Size > 64<<10 {
		return "", errors.New("it has no section .osrel")
	}
	text, err := s.Data()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if role, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimRight(line, "\x00")), "IMAGE_ID=imgbuild-"); ok {
			return role, nil
		}
	}
	return "", errors.New("its os-release is not imgbuild's")
}
