package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// ociImage takes parts from the root file system of an OCI image: a reference in
// a registry, a layout folder, or an archive of one. Container images come from
// the same layout or archive where it names them, else from their registry.
type ociImage struct {
	opt Options

	mu   sync.Mutex
	kept map[string][]named // what a place offers, looked at once
}

var _ Source = (*ociImage)(nil)

// partFolders are where an executable is looked for in an image or a folder, in this order.
var partFolders = []string{"usr/bin", "usr/local/bin", "usr/sbin", "bin", "sbin", "opt/bin", "."}

// Resolve implements Source. The image is pulled, because only its layers tell what it holds.
func (o *ociImage) Resolve(ctx context.Context, req lock.Request) (lock.Pin, error) {
	where := o.opt.OCI
	if len(req.Args) > 0 {
		where = req.Args[0]
	}
	if where == "" {
		return lock.Pin{}, errors.New("the source oci needs an image: set kubernetes.oci to a reference or a layout folder")
	}
	list, err := o.keepAll(ctx, where)
	if err != nil {
		return lock.Pin{}, err
	}
	pin := lock.Pin{Request: req.Name, Kind: req.Kind, Name: req.Name, Version: strings.TrimPrefix(req.Version, "v"), Arch: o.opt.Arch, Source: "oci", URL: where}
	if req.Kind == lock.KindImage {
		for _, n := range list {
			if n.name == req.Name {
				pin.Digest = n.digest.String()
				return pin, nil
			}
		}
		if isLocal(where) {
			return lock.Pin{}, fmt.Errorf("%s names no image %s: %w", where, req.Name, ErrNotOffered)
		}
		return pullPin(ctx, o.opt, req, "oci")
	}
	for _, n := range list {
		if _, err := o.extract(ctx, n.digest.String(), req.Name); err == nil {
			pin.Digest = n.digest.String()
			return pin, nil
		} else if !errors.Is(err, ErrNotOffered) {
			return lock.Pin{}, err
		}
	}
	return lock.Pin{}, fmt.Errorf("no image in %s has an executable %s in /usr/bin: %w", where, req.Name, ErrNotOffered)
}

// keepAll brings everything that a place offers into the store, once.
func (o *ociImage) keepAll(ctx context.Context, where string) ([]named, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if list, ok := o.kept[where]; ok {
		return list, nil
	}
	list, err := o.keepNow(ctx, where)
	if err != nil {
		return nil, err
	}
	if o.kept == nil {
		o.kept = map[string][]named{}
	}
	o.kept[where] = list
	return list, nil
}

func (o *ociImage) keepNow(ctx context.Context, where string) ([]named, error) {
	if info, err := os.Stat(where); err == nil {
		if info.IsDir() {
			return keepLayout(ctx, o.opt.Store, where, o.opt.Arch)
		}
		return keepArchive(ctx, o.opt.Store, where, o.opt.Arch)
	}
	digest, err := pull(ctx, o.opt, where)
	if err != nil {
		return nil, err
	}
	return []named{{digest: digest}}, nil
}

func isLocal(where string) bool {
	_, err := os.Stat(where)
	return err == nil
}

// Parts implements Source.
func (o *ociImage) Parts(ctx context.Context, pins []lock.Pin) ([]Executable, error) {
	out := make([]Executable, len(pins))
	for i, pin := range pins {
		if err := o.ensure(ctx, pin); err != nil {
			return nil, fmt.Errorf("taking %s from %s: %w", pin.Name, pin.URL, err)
		}
		file, err := o.extract(ctx, pin.Digest, pin.Name)
		if err != nil {
			return nil, fmt.Errorf("taking %s from %s: %w", pin.Name, pin.URL, err)
		}
		if out[i], err = executable(pin.Name, file); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Images implements Source.
func (o *ociImage) Images(ctx context.Context, pins []lock.Pin, _ *tree.Tree) ([]Image, error) {
	out := make([]Image, len(pins))
	for i, pin := range pins {
		if err := o.ensure(ctx, pin); err != nil {
			return nil, fmt.Errorf("taking image %s from %s: %w", pin.Name, pin.URL, err)
		}
		img, err := openImage(o.opt.Store, pin.Digest)
		if err != nil {
			return nil, err
		}
		out[i] = Image{Name: pin.Name, Image: img}
	}
	return out, nil
}

// Constants implements Source by running the image's own kubeadm.
func (o *ociImage) Constants(ctx context.Context, kubernetes string) (Constants, error) {
	pin, err := o.Resolve(ctx, lock.Request{Kind: lock.KindPart, Name: "kubeadm", Version: kubernetes})
	if err != nil {
		return Constants{}, err
	}
	return constantsBy(ctx, o, o.opt, pin, kubernetes)
}

// ensure makes sure that the pinned image is in the store.
func (o *ociImage) ensure(ctx context.Context, pin lock.Pin) error {
	_, err := openImage(o.opt.Store, pin.Digest)
	if err == nil || !missing(err) {
		return err
	}
	if !isLocal(pin.URL) {
		return pullPinned(ctx, o.opt, pin)
	}
	if _, err = o.keepAll(ctx, pin.URL); err != nil {
		return err
	}
	if _, err = openImage(o.opt.Store, pin.Digest); err != nil {
		return fmt.Errorf("it changed since the lock was made (%w): make the lock anew", err)
	}
	return nil
}

// extract files an executable from an image's root file system in the store and returns its path.
func (o *ociImage) extract(ctx context.Context, digest, part string) (string, error) {
	return o.opt.Store.Once(ctx, "oci part "+digest+" "+part, func(ctx context.Context) (string, error) {
		img, err := openImage(o.opt.Store, digest)
		if err != nil {
			return "", err
		}
		return findInImage(ctx, o.opt, img, part)
	})
}

func findInImage(ctx context.Context, opt Options, img v1.Image, part string) (string, error) {
	m, err := img.Manifest()
	if err != nil {
		return "", err
	}
	var packed int64
	for _, d := range m.Layers {
		packed += d.Size
	}
	r := mutate.Extract(img)
	defer r.Close() //nolint:errcheck // read only
	best, rank := "", len(partFolders)
	for tr := tar.NewReader(capped(r, packed)); ; {
		h, err := tr.Next()
		if err == io.EOF { //nolint:errorlint // tar.Reader's contract is the bare io.EOF
			break
		}
		if err != nil {
			return "", err
		}
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if h.Typeflag != tar.TypeReg || path.Base(name) != part || h.Mode&0o111 == 0 {
			continue
		}
		for i, dir := range partFolders[:rank] {
			if path.Dir(name) == dir {
				if best, _, err = opt.Store.Put(ctx, tr); err != nil {
					return "", err
				}
				rank = i
				break
			}
		}
	}
	if best == "" {
		return "", fmt.Errorf("no executable %s: %w", part, ErrNotOffered)
	}
	return best, nil
}

// standIn is the reference to ask for: the image's own, or the same path on the stand-in registry.
func standIn(registry, ref string) string {
	if registry == "" {
		return ref
	}
	_, rest, _ := strings.Cut(ref, "/")
	return strings.TrimSuffix(registry, "/") + "/" + rest
}

// ask finds an image of the wanted platform in its registry; nothing but its manifest is read.
func ask(ctx context.Context, opt Options, ref string) (img v1.Image, at string, digest v1.Hash, err error) {
	if err := fetch.NoUser(ref); err != nil {
		return nil, "", v1.Hash{}, err
	}
	parsed, err := name.ParseReference(ref, name.StrictValidation)
	if err != nil {
		return nil, "", v1.Hash{}, fmt.Errorf("%q is no image reference with a tag or digest, and no folder: %w", ref, err)
	}
	if opt.Offline {
		return nil, "", v1.Hash{}, fmt.Errorf("image %s: %w", ref, fetch.ErrOffline)
	}
	img, err = remote.Image(parsed, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(fetch.Retrying(remote.DefaultTransport, fetch.Options{Answers: true})), remote.WithRetryBackoff(remote.Backoff{Steps: 1}),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: opt.Arch}))
	if err != nil {
		return nil, "", v1.Hash{}, fmt.Errorf("asking the registry for %s: %w", ref, err)
	}
	if digest, err = img.Digest(); err != nil {
		return nil, "", v1.Hash{}, fmt.Errorf("asking the registry for %s: %w", ref, err)
	}
	return img, parsed.Context().Name() + "@" + digest.String(), digest, nil
}

// pull brings an image of the wanted platform into the store.
func pull(ctx context.Context, opt Options, ref string) (digest v1.Hash, err error) {
	img, _, digest, err := ask(ctx, opt, ref)
	if err != nil {
		return v1.Hash{}, err
	}
	defer opt.Report.Stage("pulling " + ref)()
	if err := keepImage(ctx, opt.Store, img); err != nil {
		return v1.Hash{}, fmt.Errorf("pulling %s: %w", ref, err)
	}
	return digest, nil
}

// pullPin resolves an image in its registry to a digest.
func pullPin(ctx context.Context, opt Options, req lock.Request, source string) (lock.Pin, error) {
	_, at, digest, err := ask(ctx, opt, standIn(opt.Registry, req.Name))
	if err != nil {
		return lock.Pin{}, err
	}
	return lock.Pin{Request: req.Name, Kind: req.Kind, Name: req.Name, Version: strings.TrimPrefix(req.Version, "v"), Arch: opt.Arch, Source: source, URL: at, Digest: digest.String()}, nil
}

// pullPinned brings exactly the pinned image into the store.
func pullPinned(ctx context.Context, opt Options, pin lock.Pin) error {
	repo, _, _ := strings.Cut(pin.URL, "@")
	if r, err := name.ParseReference(repo); err == nil { // where a whole image was asked for, the tag goes
		repo = r.Context().Name()
	}
	_, err := pull(ctx, opt, repo+"@"+pin.Digest)
	return err
}

// constantsBy fetches a pinned kubeadm and asks it.
func constantsBy(ctx context.Context, s Source, opt Options, pin lock.Pin, kubernetes string) (Constants, error) {
	parts, err := s.Parts(ctx, []lock.Pin{pin})
	if err != nil {
		return Constants{}, err
	}
	dir, err := opt.Store.TempDir("kubeadm-")
	if err != nil {
		return Constants{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	file := path.Join(dir, "kubeadm")
	if err := copyExecutable(parts[0], file); err != nil {
		return Constants{}, err
	}
	return askKubeadm(ctx, file, kubernetes)
}

// copyExecutable makes a copy that may be run: files in the store may not.
func copyExecutable(e Executable, to string) error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()                                                     //nolint:errcheck // read only
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700) // #nosec G302,G304 -- to be run, in a private scratch folder
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
