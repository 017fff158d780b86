package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/erofs/go-erofs"
)

// Extension reads a system extension (UAPI Extension Image specification), a bare EROFS
// file system or a disk with its hash tree: it is called as it says itself, brings
// nothing but what may lie below /usr, and the programs of a node are in it.
func Extension(ctx context.Context, file string) (*Report, error) {
	r, f, err := reportOn(file, "sysext")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	err = guard(func() error {
		fsys := io.NewSectionReader(f, 0, r.Size)
		if !isEROFS(f) {
			if fsys, err = r.openSealed(ctx, f); err != nil || fsys == nil {
				return err
			}
		}
		tree, err := erofs.Open(fsys)
		if err != nil {
			return err
		}
		return r.readExtension(tree, strings.TrimSuffix(path.Base(file), ".raw"))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// reportOn begins the report on a file, which the caller closes.
func reportOn(file, format string) (*Report, *os.File, error) {
	f, err := os.Open(file) // #nosec G304 -- the file that the caller names
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &Report{Format: format, Size: info.Size(), Findings: []Finding{}}, f, nil
}

// isEROFS says whether a file system begins where the file does.
func isEROFS(f io.ReaderAt) bool {
	magic := make([]byte, 4)
	return readAt(f, magic, 1024) == nil && string(magic) == "\xe2\xe1\xf5\xe0"
}

// openSealed is the root partition of a disk without a boot loader, once its blocks are
// what the partitions' UUIDs, the halves of the root hash, vouch for; else nil.
func (r *Report) openSealed(ctx context.Context, disk io.ReaderAt) (*io.SectionReader, error) {
	parts, err := readTable(disk, r.Size)
	if err != nil {
		return nil, err
	}
	r.Partitions = parts
	root, tree := find(parts, typeRoot), find(parts, typeVerity)
	if len(parts) != 2 || root == nil || tree == nil {
		r.say("partitions", "", "want a root and a verity partition, and no other")
		return nil, nil
	}
	r.RootHash = strings.ReplaceAll(root.UUID+tree.UUID, "-", "")
	sound, err := r.checkVerity(ctx, section(disk, root), section(disk, tree))
	if err != nil || !sound {
		return nil, err
	}
	return section(&kept{disk: disk, size: r.Size, at: map[int64][]byte{}}, root), nil
}

// Archive reads the tar of an extension's files, as Extension does.
func Archive(file string) (*Report, error) {
	r, f, err := reportOn(file, "sysext-tar")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	missing := map[string]bool{}
	for _, program := range nodePrograms {
		missing["usr/bin/"+program] = true
	}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		p := path.Clean(h.Name)
		delete(missing, p)
		if p != "usr" && !strings.HasPrefix(p, "usr/") {
			r.say("extension", h.Name, "lies outside of /usr")
		}
		if h.Mode&0o6000 != 0 && !setuid[p] {
			r.say("setuid", p, "is not on the list of set-uid and set-gid programs")
		}
	}
	for _, p := range slices.Sorted(maps.Keys(missing)) {
		r.say("programs", path.Base(p), "is not in the extension")
	}
	return r, nil
}

// nodePrograms are those without which a host is no node.
var nodePrograms = []string{"kubeadm", "kubelet", "kubectl", "crictl", "containerd", "runc"}

func (r *Report) readExtension(fsys fs.FS, name string) error {
	release := "usr/lib/extension-release.d/extension-release." + name
	if text, err := fs.ReadFile(fsys, release); err != nil || !regexp.MustCompile(`(?m)^ID=`).Match(text) {
		r.say("extension", release, "does not say for which system the extension is (%v)", err)
	}
	programs := nodePrograms
	if _, err := fs.Stat(fsys, imagesDir); err == nil {
		programs = nil // it brings the container images
	}
	for _, program := range programs {
		if _, err := fs.Stat(fsys, "usr/bin/"+program); err != nil {
			r.say("programs", program, "is not in the extension")
		}
	}
	return fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		if p != "." && p != "usr" && !strings.HasPrefix(p, "usr/") {
			r.say("extension", p, "lies outside of /usr")
		}
		return r.checkEntry(fsys, p, d)
	})
}

// Config reads a config for a host: it holds no private key, and no token but where one
// is known to be there.
func Config(file string, token bool) (*Report, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- the file that the caller names
	if err != nil {
		return nil, err
	}
	r := &Report{Format: "config", Size: int64(len(text)), Findings: []Finding{}}
	if text, err = unpacked(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if text, err = withResources(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if secret(text, !token) {
		r.say("secrets", path.Base(file), "looks like it has a private key or a bootstrap token in it")
	}
	return r, nil
}

// maxConfig bounds a config once it is unpacked.
const maxConfig = 16 << 20

func unpacked(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxConfig))
}

// packed are the data URLs (RFC 2397) of an Ignition config that are not plain text.
var packed = regexp.MustCompile(`data:[a-z/;+-]*;base64,([A-Za-z0-9+/=]+)`)

// withResources is a config and what its data URLs hold.
func withResources(text []byte) ([]byte, error) {
	all := bytes.Clone(text)
	for _, m := range packed.FindAllSubmatch(text, -1) {
		data, err := base64.StdEncoding.DecodeString(string(m[1]))
		if err != nil {
			continue // no URL of ours
		}
		if data, err = unpacked(data); err != nil {
			return nil, err
		}
		all = append(append(all, '\n'), data...)
	}
	return all, nil
}

// isSealed says whether a disk has a root but nothing to boot it by.
func isSealed(disk io.ReaderAt, size int64) bool {
	parts, err := readTable(disk, size)
	return err == nil && find(parts, typeRoot) != nil && find(parts, typeESP) == nil
}

// isConfig says whether the file is JSON, YAML with the comment that ours begin with,
// gzip of it, or a seed disk (ISO 9660).
func isConfig(f io.ReaderAt) bool {
	first, cd := make([]byte, 2), make([]byte, 5)
	if readAt(f, first, 0) != nil {
		return false
	}
	return bytes.ContainsAny(first[:1], "{#") || bytes.Equal(first, []byte{0x1f, 0x8b}) || readAt(f, cd, 16*2048+1) == nil && string(cd) == "CD001"
}

// isTar says whether the file is a POSIX archive.
func isTar(f io.ReaderAt) bool {
	magic := make([]byte, 5)
	return readAt(f, magic, 257) == nil && string(magic) == "ustar"
}
