package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder/stamp"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// Image is a netboot image: one file that firmware loads, with a place in it for what one
// machine is told. It may be read by many at once.
type Image interface {
	Role() string
	Cmdline() string // the kernel's
	Size() int64     // bytes, of any machine's
	// Reader is the whole file with a machine's credentials in it; each is independent.
	Reader(s stamp.Stamp, more map[string][]byte) (io.ReadSeeker, error)
	Close() error
}

// openImage opens a netboot image.
func openImage(file string) (Image, error) {
	n, err := stamp.OpenNetboot(file)
	if err != nil { // no nil of a type
		return nil, err
	}
	return n, nil
}

// formats that matter here; public ones hold nothing secret, and are served to whoever asks.
const (
	formatNetboot = "netboot"
	formatDisk    = "raw.zst"
)

var public = map[string]bool{formatDisk: true, "sysext": true, "sysext-tar": true, "sysext-images": true}

// maxManifest bounds a manifest, bytes; maxDisk a disk, and maxWindow how far back a zstd
// frame may refer, as zstd(1) has it.
const maxManifest, maxDisk, maxWindow = 64 << 20, 64 << 30, 128 << 20

// manifest is what is read of one.
type manifest struct {
	Role    string `json:"role"`
	Arch    string `json:"arch"`
	Outputs []struct {
		Format string `json:"format"`
		File   string `json:"file"`
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"outputs"`
}

// disk is a role's, packed: what the installer has to know.
type disk struct {
	file   string
	sha256 string // of the packed file, as its manifest says
	raw    string // sha256 of the disk itself; empty until measured
	size   int64  // of the disk itself, bytes
}

// catalogue is what a folder of outputs holds, as it was when it was opened.
type catalogue struct {
	images map[string]Image             // by role
	disks  map[string]*disk             // by role
	files  map[string]*io.SectionReader // by name: the public ones
	opened []io.Closer
	open   func(file string) (Image, error)
}

// served is the architecture of the machines that are served.
const served = "amd64"

// openCatalogue opens what the manifests in dir name. Nothing outside of dir is opened, and
// of what is in it nothing that no manifest names.
func openCatalogue(dir string, open func(string) (Image, error)) (c *catalogue, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err)
	}
	defer root.Close() //nolint:errcheck // read only
	c = &catalogue{images: map[string]Image{}, disks: map[string]*disk{}, files: map[string]*io.SectionReader{}, open: open}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	names, err := fs.Glob(root.FS(), "*.manifest.json")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := readIn(root, name)
		if err != nil {
			return c, fmt.Errorf("reading %s: %w", name, err)
		}
		var m manifest
		if err := json.Unmarshal(text, &m); err != nil {
			return c, fault.New(fault.Verify, "%s: %w", filepath.Join(dir, name), err)
		}
		if m.Arch != served {
			continue
		}
		if err := c.add(root, dir, m); err != nil {
			return c, err
		}
	}
	if len(c.images) == 0 {
		return c, fault.New(fault.Usage, "%s holds no netboot image for "+served+": `imgbuild worker -o %s --format netboot,raw.zst` builds one", dir, dir)
	}
	return c, nil
}

func readIn(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	return io.ReadAll(io.LimitReader(f, maxManifest))
}

// add opens a manifest's outputs.
func (c *catalogue) add(root *os.Root, dir string, m manifest) error {
	for _, o := range m.Outputs {
		if o.Format != formatNetboot && !public[o.Format] {
			continue
		}
		full := filepath.Join(dir, o.File)
		if filepath.Base(o.File) != o.File {
			return fault.New(fault.Verify, "%s: a manifest names it, and it is no file of the folder", o.File)
		}
		info, err := root.Lstat(o.File)
		if err != nil {
			return fault.New(fault.Usage, "%s: its manifest is there, and it is not: build it again: %w", full, err)
		}
		if !info.Mode().IsRegular() || info.Size() != o.Size {
			return fault.New(fault.Verify, "%s: it is no file of %d bytes, as its manifest says: build it again", full, o.Size)
		}
		if o.Format == formatNetboot {
			err = c.addImage(full, m.Role)
		} else {
			err = c.addFile(root, o.File, o.Size)
		}
		if err != nil {
			return err
		}
		if o.Format == formatDisk {
			c.disks[m.Role] = &disk{file: o.File, sha256: o.SHA256}
		}
	}
	return nil
}

func (c *catalogue) addImage(file, role string) error {
	if c.images[role] != nil {
		return fault.New(fault.Usage, "%s: the folder has another netboot image of a %s: serve a folder that has one", file, role)
	}
	image, err := c.open(file)
	if err != nil {
		return err
	}
	c.opened = append(c.opened, image)
	if image.Role() != role {
		return fault.New(fault.Verify, "%s: it is a %s's image, its manifest is a %s's", file, image.Role(), role)
	}
	if !sayable(image.Cmdline()) {
		return fault.New(fault.Usage, "%s: no iPXE script can say its kernel command line, %q: leave quotes, $, \\, || and && out of boot.cmdline", file, image.Cmdline())
	}
	c.images[role] = image
	return nil
}

func (c *catalogue) addFile(root *os.Root, name string, size int64) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	c.opened = append(c.opened, f)
	c.files[name] = io.NewSectionReader(f, 0, size)
	return nil
}

// measure unpacks a role's disk once: the installer checks what it wrote by that digest.
func (c *catalogue) measure(role string) error {
	d := c.disks[role]
	if d == nil || d.raw != "" {
		return nil
	}
	packed, plain := sha256.New(), sha256.New()
	z, err := zstd.NewReader(io.TeeReader(c.reader(d.file), packed), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	d.size, err = io.Copy(plain, io.LimitReader(z, maxDisk))
	if got := hex.EncodeToString(packed.Sum(nil)); err != nil || got != d.sha256 {
		return fault.New(fault.Verify, "%s: its sha256 is %s, its manifest says %s: build it again", d.file, got, errors.Join(errors.New(d.sha256), err))
	}
	d.raw = hex.EncodeToString(plain.Sum(nil))
	return nil
}

// reader reads a public file from its start, independent of others; nil: there is none.
func (c *catalogue) reader(name string) *io.SectionReader {
	f := c.files[name]
	if f == nil {
		return nil
	}
	return io.NewSectionReader(f, 0, f.Size())
}

// Close closes all that was opened.
func (c *catalogue) Close() {
	for _, f := range c.opened {
		_ = f.Close() // read only
	}
}

// roles are those with an image, in words.
func (c *catalogue) roles() string {
	var out []string
	for _, role := range []string{"master", "worker"} {
		if c.images[role] != nil {
			out = append(out, role)
		}
	}
	return strings.Join(out, " and ")
}
