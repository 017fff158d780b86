package assemble

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/rootfs"
	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/erofs"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// fromBase are programs of the base's packages that a host gets with the payload, and
// where: /usr/sbin is a link on some hosts, which a folder of an extension would hide.
var fromBase = map[string]string{"usr/bin/runc": "usr/bin/runc", "usr/sbin/runc": "usr/bin/runc", "usr/lib/cni": "usr/lib/cni"}

// PayloadTree is the part of a laid out root that hosts get as a system extension
// (UAPI Extension Image specification): programs and their units, below /usr.
func PayloadTree(p *plan.Plan, root *tree.Tree, files []component.File) (*tree.Tree, error) {
	return extension(p.Payload(), p.Arch, root, files, fromBase)
}

// ImageTree is the part that brings the container images.
func ImageTree(p *plan.Plan, root *tree.Tree, files []component.File) (*tree.Tree, error) {
	return extension(p.ImagePayload(), p.Arch, root, files, map[string]string{rootfs.ImagesDir: rootfs.ImagesDir})
}

func extension(name, processor string, root *tree.Tree, files []component.File, more map[string]string) (*tree.Tree, error) {
	out := tree.New()
	for _, f := range files {
		n, ok := root.Get(f.Path)
		if !ok {
			return nil, fmt.Errorf("%s is not in the root", f.Path)
		}
		if err := out.Put(f.Path, *n); err != nil {
			return nil, err
		}
	}
	if err := root.Walk(func(p string, n *tree.Node) error {
		for prefix, to := range more {
			if rest, ok := strings.CutPrefix(p, prefix); ok {
				return out.Put(to+rest, *n)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	names, err := arch.Of(processor)
	if err != nil {
		return nil, err
	}
	release := fmt.Sprintf("ID=_any\nARCHITECTURE=%s\nEXTENSION_RELOAD_MANAGER=1\n", names.OS)
	return out, out.Put(path.Join("usr/lib/extension-release.d", "extension-release."+name), tree.Node{Mode: 0o644, Content: tree.Bytes(release)})
}

// Extension writes a system extension into the scratch folder dir: one EROFS file system,
// or, sealed, a disk with it and its hash tree (UAPI Discoverable Disk Image), whose
// root hash is returned in hex.
func Extension(ctx context.Context, name, processor string, t *tree.Tree, dir string, sealed bool, cache *store.Store) (file, rootHash string, err error) {
	file = filepath.Join(dir, "extension-"+name)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, fs.FileMode(0o644)) // #nosec G302 G304 -- our own scratch file, which holds no secret
	if err != nil {
		return "", "", err
	}
	s := Sealed{dataAt: mib}
	if sealed {
		if err = s.write(ctx, "extension "+name, t, f, cache); err == nil {
			_, err = s.table(f, repro.UUID("extension disk", name).String(), processor, "root", "root-verity")
		}
		rootHash = hex.EncodeToString(s.hash)
	} else {
		_, err = erofs.Write(ctx, f, t, erofs.Options{UUID: repro.UUID("extension", name), Epoch: repro.DefaultEpoch})
	}
	disk := sparse.Pour(ctx, f, s.later)
	if err = errors.Join(err, disk.Wait(), disk.Close()); err != nil {
		return "", "", fmt.Errorf("writing the system extension: %w", err)
	}
	return file, rootHash, nil
}

// Archive writes the files of an extension as a tar, for hosts without systemd-sysext.
func Archive(name string, t *tree.Tree, dir string) (file string, err error) {
	file = filepath.Join(dir, "archive-"+name)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(0o644)) // #nosec G302 G304 -- as above
	if err != nil {
		return "", err
	}
	return file, errors.Join(t.WriteTar(f), f.Close())
}
