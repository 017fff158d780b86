// Package deb reads Debian's binary packages (deb(5)): an ar archive of
// debian-binary, control.tar and data.tar. It takes nothing on trust: archives
// are bounded, and an entry that would land outside, or is neither a file, a
// folder nor a link, is an error. It unpacks nothing and runs nothing.
package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// Bounds on what one package may hold. The largest packages of Debian stay below a tenth of them.
const (
	maxControl    = 64 << 20 // bytes of control.tar, uncompressed
	maxData       = 8 << 30  // bytes of data.tar, uncompressed; less where the package says that it is small
	slack         = 32 << 20 // bytes that data.tar may have beyond twice its Installed-Size, for the archive's own headers
	maxEntries    = 500_000
	maxDictionary = 64 << 20 // that of xz -9
)

// Package is one opened package. Its data is read by Walk.
type Package struct {
	Control Paragraph
	Members map[string][]byte // of control.tar beside control itself, such as postinst

	data func() (io.ReadCloser, error)
}

// Open reads the package in file. The file must stay as it is while the package is in use.
func Open(file string) (*Package, error) {
	f, err := os.Open(file) // #nosec G304 -- the caller's file
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	members, err := readAr(f)
	if err != nil {
		return nil, err
	}
	version, err := io.ReadAll(io.NewSectionReader(f, members[0].offset, min(members[0].size, 16)))
	if err != nil {
		return nil, err
	}
	if members[0].name != "debian-binary" || !bytes.HasPrefix(version, []byte("2.")) {
		return nil, fmt.Errorf("no Debian package of format 2: it begins with %q %q", members[0].name, version)
	}
	if len(members) < 3 || !strings.HasPrefix(members[1].name, "control.tar") || !strings.HasPrefix(members[2].name, "data.tar") {
		return nil, errors.New("no Debian package: debian-binary, control.tar and data.tar must come in this order")
	}
	p := &Package{data: func() (io.ReadCloser, error) { return members[2].open(file) }}
	return p, p.readControl(func() (io.ReadCloser, error) { return members[1].open(file) })
}

func (p *Package) readControl(open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return fmt.Errorf("control.tar: %w", err)
	}
	defer r.Close() //nolint:errcheck // read only
	p.Members = map[string][]byte{}
	archive := tar.NewReader(&bounded{r: r, left: maxControl})
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("control.tar: %w", err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir && name == "." {
			continue
		}
		if h.Typeflag != tar.TypeReg || strings.ContainsAny(name, "/\x00") || name == ".." {
			return fmt.Errorf("control.tar: %q is not a plain file at its top", h.Name)
		}
		if p.Members[name], err = io.ReadAll(archive); err != nil {
			return fmt.Errorf("control.tar: %s: %w", name, err)
		}
	}
	text, ok := p.Members["control"]
	if !ok {
		return errors.New("control.tar: it holds no control file")
	}
	delete(p.Members, "control")
	if p.Control, err = ParseParagraph(text); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// Walk calls fn for every entry of data.tar. The entry's name is clean and relative
// to the root ("." is the root itself), and so is the target of a hard link, which is
// a file that came before. fn need not read the content.
func (p *Package) Walk(fn func(h *tar.Header, content io.Reader) error) error {
	r, err := p.data()
	if err != nil {
		return fmt.Errorf("data.tar: %w", err)
	}
	defer r.Close() //nolint:errcheck // read only
	archive := tar.NewReader(&bounded{r: r, left: p.bound()})
	seen := map[string]byte{} // path → type
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return drain(r)
		}
		if err != nil {
			return fmt.Errorf("data.tar: %w", err)
		}
		if err := checkEntry(h, seen); err != nil {
			return fmt.Errorf("data.tar: %q: %w", h.Name, err)
		}
		if err := fn(h, archive); err != nil {
			return err
		}
	}
}

// bound is how many bytes data.tar may unpack to.
func (p *Package) bound() int64 {
	kib, err := strconv.ParseInt(p.Control.Get("Installed-Size"), 10, 64)
	if err != nil || kib < 0 || kib > maxData>>11 {
		return maxData
	}
	return min(maxData, slack+2*kib<<10)
}

// drain reads what follows the archive's end, so that a checksum at the stream's end is seen.
func drain(r io.Reader) error {
	if _, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20)); err != nil {
		return fmt.Errorf("data.tar: %w", err)
	}
	return nil
}

// checkEntry cleans the entry's names and refuses what could reach outside.
func checkEntry(h *tar.Header, seen map[string]byte) (err error) {
	if h.Name, err = inside(h.Name); err != nil {
		return err
	}
	if len(seen) > maxEntries {
		return fmt.Errorf("the package has more than %d entries", maxEntries)
	}
	for dir := path.Dir(h.Name); dir != "."; dir = path.Dir(dir) {
		if kind, ok := seen[dir]; ok && kind != tar.TypeDir {
			return fmt.Errorf("it lies below %s, which is no folder", dir)
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return errors.New("a link without a target")
		}
	case tar.TypeLink:
		if h.Linkname, err = inside(h.Linkname); err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
		if seen[h.Linkname] != tar.TypeReg && seen[h.Linkname] != tar.TypeLink {
			return fmt.Errorf("hard link to %q, which is not a file that came before", h.Linkname)
		}
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return errors.New("a package may not bring a device or a pipe")
	default:
		return fmt.Errorf("unsupported archive entry type %q", h.Typeflag)
	}
	if h.Name == "." && h.Typeflag != tar.TypeDir {
		return errors.New("the root must be a folder")
	}
	if kind, ok := seen[h.Name]; ok && (kind != tar.TypeDir || h.Typeflag != tar.TypeDir) {
		return errors.New("the package has it twice")
	}
	seen[h.Name] = h.Typeflag
	return nil
}

// inside cleans a name, or says why it may not be.
func inside(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", errors.New("an absolute path")
	}
	if strings.ContainsRune(name, 0) || len(name) > 4095 {
		return "", errors.New("a NUL byte in it, or longer than 4095 bytes")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New("a '..' part climbs out")
		}
	}
	return path.Clean(name), nil
}

// member is one file of an ar archive.
type member struct {
	name         string
	offset, size int64
}

// readAr lists the members of an ar archive (ar(5), its common form: names of at most 16 bytes).
func readAr(f *os.File) ([]member, error) {
	const magic, head = "!<arch>\n", 60
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, head)
	if _, err := f.ReadAt(buf[:len(magic)], 0); err != nil || string(buf[:len(magic)]) != magic {
		return nil, errors.New("no Debian package: it is not an ar archive")
	}
	var out []member
	for at := int64(len(magic)); at < info.Size(); {
		if _, err := f.ReadAt(buf, at); err != nil || string(buf[58:]) != "`\n" || len(out) > 100 {
			return nil, fmt.Errorf("the ar archive is damaged or cut off at byte %d of %d", at, info.Size())
		}
		m := member{name: strings.TrimRight(string(buf[:16]), " /"), offset: at + head}
		if m.size, err = strconv.ParseInt(strings.TrimSpace(string(buf[48:58])), 10, 64); err != nil || m.size < 0 || m.offset+m.size > info.Size() {
			return nil, fmt.Errorf("the ar archive is damaged or cut off: its member %q has %s bytes from byte %d of %d", m.name, strings.TrimSpace(string(buf[48:58])), m.offset, info.Size())
		}
		out = append(out, m)
		at = m.offset + m.size + m.size%2
	}
	if len(out) == 0 {
		return nil, errors.New("no Debian package: the ar archive is empty")
	}
	return out, nil
}

// open returns the member's uncompressed content.
func (m member) open(file string) (io.ReadCloser, error) {
	f, err := os.Open(file) // #nosec G304 -- the caller's file
	if err != nil {
		return nil, err
	}
	r, err := uncompress(path.Ext(m.name), io.NewSectionReader(f, m.offset, m.size))
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, f}, nil
}

func uncompress(ext string, r io.Reader) (io.Reader, error) {
	switch ext {
	case ".xz":
		return xz.NewReader(r, maxDictionary)
	case ".zst":
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, err
		}
		return d, nil
	case ".gz":
		return gzip.NewReader(r)
	case ".tar":
		return r, nil
	}
	return nil, fmt.Errorf("compression %q is unknown: xz, zst, gz and none are read: %w", ext, fs.ErrInvalid)
}

// bounded ends with an error, not with io.EOF, when more comes than may.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errors.New("it unpacks to more than a package may hold")
	}
	return n, err
}
