// Package verify reads an image back and says what is wrong with it: the
// partition table, the boot loader and the UKI, every block of the root file
// system against the root hash on the command line, and the hygiene of what lies
// in it. It shares no code with the packages that write images.
package verify

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// Report is what an image turned out to be. An image is good when Findings is empty.
type Report struct {
	Format     string            `json:"format"`
	Size       int64             `json:"size"` // of the disk, in bytes
	Partitions []Partition       `json:"partitions"`
	UKI        string            `json:"uki"` // path in the ESP
	Kernel     string            `json:"kernel"`
	Cmdline    string            `json:"cmdline"`
	RootHash   string            `json:"rootHash"`
	OS         map[string]string `json:"os"`             // os-release(5)
	Node       json.RawMessage   `json:"node,omitempty"` // node.json as it lies in the image
	Findings   []Finding         `json:"findings"`

	visit    func(root fs.FS) error
	packaged map[string]bool // files that need no look for secrets
	processor
}

// Finding is one thing that is wrong. Check names the rule.
type Finding struct {
	Check   string `json:"check"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// String is the finding on one line.
func (f Finding) String() string {
	if f.Path == "" {
		return f.Check + ": " + f.Message
	}
	return f.Check + ": " + f.Path + ": " + f.Message
}

// Image reads the image at file: a disk in any of the formats, or a system extension. The error says that it could not
// be read at all; what is wrong with what was read is in the report.
func Image(ctx context.Context, file string) (*Report, error) { return image(ctx, file, nil) }

// Root reads the image of a node as Image does, and hands its root file system on once all
// of it is vouched for by the root hash. Without one, read is not called: an error.
func Root(ctx context.Context, file string, read func(root fs.FS) error) (*Report, error) {
	called := false
	r, err := image(ctx, file, func(root fs.FS) error {
		called = true
		return read(root)
	})
	if err == nil && !called {
		err = fmt.Errorf("%s: it is no sound image of a node: `imgbuild verify` says why", file)
	}
	return r, err
}

// Raw reads a disk as Image does one in the format raw, while others still write it: it
// waits in its reads. File is what errors call it.
func Raw(ctx context.Context, file string, disk interface {
	io.ReaderAt
	Size() (int64, error)
}) (*Report, error) {
	size, err := disk.Size()
	if err != nil {
		return nil, err
	}
	r := &Report{Format: "raw", Size: size, Findings: []Finding{}}
	if err := guard(func() error { return r.read(ctx, disk) }); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func image(ctx context.Context, file string, visit func(fs.FS) error) (*Report, error) {
	f, err := os.Open(file) // #nosec G304 -- the image that the caller names
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	disk, err := open(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer disk.close()
	switch {
	case disk.format != "raw": // nothing but a disk comes in another format
	case isEROFS(disk) || isSealed(disk, disk.size):
		return Extension(ctx, file)
	case isPE(disk):
		return netboot(ctx, file, &Report{visit: visit})
	case isTar(disk):
		return Archive(file)
	case isConfig(disk):
		return Config(file, asked(file))
	}
	r := &Report{Format: disk.format, Size: disk.size, Findings: []Finding{}, visit: visit}
	if err := guard(func() error { return errors.Join(r.read(ctx, disk), r.readMedium(disk.medium)) }); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Disk is the architecture, as Go names it, of a disk that a firmware would look at; empty:
// it has no root that tells. The error says why it is none: its format is one to be unpacked,
// or it does not begin with a GPT. What is on it is Image's business.
func Disk(file string) (arch string, err error) {
	f, err := os.Open(file) // #nosec G304 -- the image that the caller names
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // read only
	if arch, err = firmware(f); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return arch, nil
}

func firmware(f *os.File) (arch string, err error) {
	format, size, err := tell(f)
	if err != nil {
		return "", err
	}
	if format.packed {
		return "", fmt.Errorf("%s is for shipping: unpack it first", format.name)
	}
	disk, err := format.open(context.Background(), f, size)
	if err != nil {
		return "", err
	}
	defer disk.close()
	first, entries, err := readHeader(disk, sectorSize)
	if err != nil {
		return "", fmt.Errorf("no partition table: %w", err)
	}
	var r Report
	r.findRoot(partitions(entries, int(binary.LittleEndian.Uint32(first[84:]))))
	return r.name, nil
}

// guard turns a panic into an error: the file system libraries are made for file
// systems, and this is where anything at all may be one.
func guard(read func() error) (err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("its structure makes no sense: %v", what)
		}
	}()
	return read()
}

func (r *Report) read(ctx context.Context, disk io.ReaderAt) error {
	parts, err := readTable(disk, r.Size)
	if err != nil {
		return err
	}
	r.Partitions = parts
	esp := find(parts, typeESP)
	root, tree := r.findRoot(parts)
	if esp == nil || root == nil {
		r.say("partitions", "", "want an EFI system, a root and a verity partition")
		return nil
	}
	kept := &kept{disk: disk, size: r.Size, at: map[int64][]byte{}}
	if err := r.readBoot(section(kept, esp), find(parts, typeBIOS) != nil); err != nil {
		return err
	}
	if r.RootHash == "" {
		return nil
	}
	if hash := strings.ToLower(r.RootHash); root.UUID+tree.UUID != dashed(hash[:32])+dashed(hash[32:]) {
		r.say("partitions", "", "the UUIDs of root %s and verity %s are not the halves of the root hash %s", root.UUID, tree.UUID, r.RootHash)
	}
	return r.readSealed(ctx, section(disk, root), section(disk, tree), section(kept, root))
}

// readSealed looks at every file of a root file system while its blocks are hashed, and
// keeps what it found if the root hash vouches for them. Who is handed the root on has it
// only then. The files are read by one reader at a time.
func (r *Report) readSealed(ctx context.Context, root, tree, files *io.SectionReader) (err error) {
	inner := *r
	inner.Findings = nil
	read := func() { err = guard(func() error { return inner.readRoot(files) }) }
	var meanwhile sync.WaitGroup
	if r.visit == nil {
		meanwhile.Go(read)
	}
	sound, unread := r.checkVerity(ctx, root, tree)
	meanwhile.Wait()
	if unread != nil || !sound { // nobody vouches for what lies in it
		return unread
	}
	if r.visit != nil {
		read()
	}
	inner.Findings = append(r.Findings, inner.Findings...)
	*r = inner
	return err
}

// kept remembers what was read of a disk lately, in clusters of qcow2's usual
// size: where they are compressed, each small read would inflate one again.
type kept struct {
	disk io.ReaderAt
	size int64
	at   map[int64][]byte
	last [256]int64 // which, in a ring
	n    int
}

// ReadAt implements io.ReaderAt, for one caller at a time.
func (k *kept) ReadAt(p []byte, off int64) (n int, err error) {
	const cluster = 64 << 10
	for n < len(p) {
		begin := (off + int64(n)) / cluster * cluster
		c, ok := k.at[begin]
		if !ok {
			if begin >= k.size {
				return n, io.EOF
			}
			c = make([]byte, min(cluster, k.size-begin))
			if err := readAt(k.disk, c, begin); err != nil {
				return n, err
			}
			delete(k.at, k.last[k.n%len(k.last)])
			k.last[k.n%len(k.last)] = begin
			k.at[begin], k.n = c, k.n+1
		}
		from := off + int64(n) - begin
		if from >= int64(len(c)) {
			return n, io.EOF
		}
		n += copy(p[n:], c[from:])
	}
	return n, nil
}

func (r *Report) say(check, path, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{check, path, fmt.Sprintf(format, args...)})
}

func section(disk io.ReaderAt, p *Partition) *io.SectionReader {
	return io.NewSectionReader(disk, p.Start, p.Size)
}

// keyValues reads a file of KEY=value lines, quotes taken off.
func keyValues(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			out[key] = strings.Trim(value, `"'`)
		}
	}
	return out
}
