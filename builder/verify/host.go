package verify

import (
	"archive/tar"
	"bytes"
	"context"
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
	root, tree := r.findRoot(parts)
	if len(parts) != 2 || root == nil {
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
		text, err := io.ReadAll(io.LimitReader(tr, maxText))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if missing[p] && !isProgram(bytes.NewReader(text)) {
			r.say("programs", path.Base(p), "is no program (ELF)")
		}
		if h.Size < maxText {
			r.noSecret(p, text)
		}
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

// isProgram says whether what is read begins as a program of Linux does.
func isProgram(f io.Reader) bool {
	magic := make([]byte, 4)
	_, err := io.ReadFull(f, magic)
	return err == nil && string(magic) == "\x7fELF"
}

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
		f, err := fsys.Open("usr/bin/" + program)
		if err != nil {
			r.say("programs", program, "is not in the extension")
			continue
		}
		if !isProgram(f) {
			r.say("programs", program, "is no program (ELF)")
		}
		_ = f.Close() // read only
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

// isSealed says whether a disk has a root but nothing to boot it by.
func isSealed(disk io.ReaderAt, size int64) bool {
	parts, err := readTable(disk, size)
	root, _ := (&Report{}).findRoot(parts)
	return err == nil && root != nil && find(parts, typeESP) == nil
}

// isTar says whether the file is a POSIX archive.
func isTar(f io.ReaderAt) bool {
	magic := make([]byte, 5)
	return readAt(f, magic, 257) == nil && string(magic) == "ustar"
}
