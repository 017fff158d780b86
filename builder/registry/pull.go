package registry

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/chunk"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/fetch"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
)

// Wanted says which of the builds that a reference names are pulled, and of them what; what
// is empty asks for all.
type Wanted struct {
	Role    string
	Arch    string   // as Go calls it
	Formats []string // of the outputs
}

// Pulled is one build that was pulled.
type Pulled struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"`
	Arch     string   `json:"arch"`
	Digest   string   `json:"digest"`  // of its OCI manifest
	Files    []string `json:"files"`   // the manifest last
	Outputs  []string `json:"outputs"` // of these
	Manifest string   `json:"manifest"`
}

// puller is one pull.
type puller struct {
	*client
	cache   *store.Store
	blobs   *fetch.Client
	unpack  *chunk.Unpacker
	written map[string]v1.Hash // by name: what it came from

	step string // for the progress
}

// Pull writes the builds that are wanted into the folder dir, each file checked against the
// manifest of its build. What was fetched stays in the cache, and is not fetched again.
func Pull(ctx context.Context, reference string, want Wanted, dir string, cache *store.Store, o Options) ([]Pulled, error) {
	c, err := connect(ctx, reference, false, o)
	if err != nil {
		return nil, err
	}
	p := &puller{client: c, cache: cache, written: map[string]v1.Hash{}}
	if p.unpack, err = chunk.NewUnpacker(); err != nil {
		return nil, err
	}
	p.blobs = fetch.New(cache, fetch.Options{Client: &http.Client{Transport: c.http}, Retried: true, Parallel: 8, Retries: o.Retries, Backoff: o.Backoff, MaxSize: maxSmall,
		Progress: func(done, total int64) { p.report.Progress(p.step, done, total, "B") }})
	entries, err := p.find(ctx, want)
	if err != nil {
		return nil, err
	}
	var out []Pulled
	for _, d := range entries {
		one, err := p.build(ctx, d, want.Formats, dir)
		if err != nil {
			return nil, err
		}
		out = append(out, *one)
	}
	return out, nil
}

// wrong is an error of what a registry holds.
func (p *puller) wrong(err error) error {
	return fault.New(fault.Verify, "%s is not what imgbuild pushes: %w", p.ref, err)
}

// find lists the builds that are wanted.
func (p *puller) find(ctx context.Context, want Wanted) ([]v1.Descriptor, error) {
	d, err := remote.Get(p.ref, p.options(ctx)...)
	if err != nil {
		return nil, p.said(ctx, "asking for", err)
	}
	if d.MediaType == types.OCIManifestSchema1 && d.ArtifactType == imageType { // a build by its digest
		return []v1.Descriptor{{Digest: d.Digest, Size: d.Size}}, nil
	}
	all, err := parseIndex(d.Manifest)
	if err != nil {
		return nil, p.wrong(err)
	}
	var there string
	var out []v1.Descriptor
	for _, d := range all {
		there += fmt.Sprintf(" %s/%s", d.Annotations[roleKey], d.Platform.Architecture)
		if wanted(d, want.Role, want.Arch) {
			out = append(out, d)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Usage, "%s has no such build; there is%s", p.ref, there)
	}
	return out, nil
}

// build pulls one build.
func (p *puller) build(ctx context.Context, entry v1.Descriptor, formats []string, dir string) (*Pulled, error) {
	l, pieces, err := p.open(ctx, entry)
	if err != nil {
		return nil, err
	}
	one := &Pulled{Name: l.name, Role: l.Role, Arch: l.Arch, Digest: entry.Digest.String(), Manifest: l.title()}
	byFile := map[string][]piece{}
	var items []fetch.Item
	for _, piece := range pieces {
		if l.isOutput(piece.file) && len(formats) > 0 && !slices.Contains(formats, l.listed[piece.file].Format) {
			continue
		}
		if byFile[piece.file] == nil {
			one.Files = append(one.Files, piece.file)
			if l.isOutput(piece.file) {
				one.Outputs = append(one.Outputs, piece.file)
			}
		}
		byFile[piece.file] = append(byFile[piece.file], piece)
		items = append(items, p.item(piece.descriptor))
	}
	for _, f := range l.Documents {
		if byFile[f.File] == nil {
			return nil, p.wrong(fmt.Errorf("%s lists %s, which is not there", l.title(), f.File))
		}
	}
	if len(one.Outputs) == 0 {
		return nil, fault.New(fault.Usage, "%s of %s has no output in such a format", l.name, p.ref)
	}
	p.step = "pulling " + l.name
	done := p.report.Stage(p.step)
	if _, err := p.blobs.All(ctx, items); err != nil {
		return nil, p.said(ctx, "pulling", err)
	}
	done()
	defer p.report.Stage("writing " + l.name)()
	for _, name := range one.Files {
		if err := p.write(ctx, l, name, byFile[name], dir); err != nil {
			return nil, err
		}
	}
	one.Files = append(one.Files, l.title())
	return one, p.claim(l.title(), l.text, dir)
}

// open fetches a build's manifests and reads them.
func (p *puller) open(ctx context.Context, entry v1.Descriptor) (*listing, []piece, error) {
	d, err := remote.Get(p.ref.Context().Digest(entry.Digest.String()), p.options(ctx)...)
	if err != nil {
		return nil, nil, p.said(ctx, "asking for", err)
	}
	m, err := parseManifest(d.Manifest)
	if err == nil && int64(len(d.Manifest)) != entry.Size {
		err = fmt.Errorf("the manifest %s has %d bytes, the index says %d", entry.Digest, len(d.Manifest), entry.Size)
	}
	if err != nil {
		return nil, nil, p.wrong(err)
	}
	path, err := p.blobs.Get(ctx, p.item(m.Config))
	if err != nil {
		return nil, nil, p.said(ctx, "pulling", err)
	}
	text, err := os.ReadFile(path) // #nosec G304 -- in the cache
	if err != nil {
		return nil, nil, err
	}
	l, err := parseListing(m.Config.Annotations[titleKey], text)
	if err != nil {
		return nil, nil, p.wrong(err)
	}
	if entry.Platform != nil && (entry.Platform.Architecture != l.Arch || entry.Annotations[roleKey] != l.Role || entry.Annotations[titleKey] != l.name) {
		return nil, nil, p.wrong(fmt.Errorf("the index says %s, %s/%s, and %s %s/%s", entry.Annotations[titleKey], entry.Annotations[roleKey], entry.Platform.Architecture, l.title(), l.Role, l.Arch))
	}
	pieces, err := l.pieces(m.Layers)
	if err != nil {
		return nil, nil, p.wrong(err)
	}
	return l, pieces, nil
}

func (p *puller) item(d v1.Descriptor) fetch.Item {
	repo := p.ref.Context()
	u := url.URL{Scheme: repo.Scheme(), Host: repo.RegistryStr(), Path: blobPath(repo.RepositoryStr(), d.Digest)}
	return fetch.Item{URL: u.String(), Size: d.Size, SHA256: d.Digest.String()}
}

// write makes a file of its pieces, which are in the cache.
func (p *puller) write(ctx context.Context, l *listing, name string, pieces []piece, dir string) error {
	if !l.isOutput(name) {
		text, err := p.read(pieces[0])
		if err != nil {
			return err
		}
		return p.claim(name, text, dir)
	}
	if _, twice := p.written[name]; twice {
		return p.twice(name)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644) // #nosec G302 G304 -- a plain name in our own folder; an image holds no secret
	if err != nil {
		return err
	}
	p.written[name] = v1.Hash{Algorithm: "sha256", Hex: l.listed[name].SHA256}
	err = p.assemble(ctx, f, l.listed[name], pieces)
	return errors.Join(err, f.Close())
}

func (p *puller) assemble(ctx context.Context, f *os.File, want file, pieces []piece) error {
	if err := f.Truncate(want.Size); err != nil {
		return err
	}
	group, sub := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, one := range pieces {
		group.Go(func() error {
			if err := sub.Err(); err != nil {
				return err
			}
			packed, err := p.read(one)
			if err != nil {
				return err
			}
			plain, err := p.unpack.Unpack(packed, int(one.size))
			if err != nil {
				return p.wrong(fmt.Errorf("the chunk of %s at %d: %w", one.file, one.at, err))
			}
			_, err = f.WriteAt(plain, one.at)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	sum, _, err := sparse.SHA256(f)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum); got != want.SHA256 {
		return p.wrong(fmt.Errorf("%s has the sha256 %s, its manifest says %s", want.File, got, want.SHA256))
	}
	return f.Sync()
}

func (p *puller) read(one piece) ([]byte, error) {
	path, err := p.cache.Get(one.descriptor.Digest.String())
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path) // #nosec G304 -- in the cache
}

// claim writes a small file; two builds may have the same one, not two of one name.
func (p *puller) claim(name string, text []byte, dir string) error {
	hash, _, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if old, twice := p.written[name]; twice && old != hash {
		return p.twice(name)
	}
	p.written[name] = hash
	return os.WriteFile(filepath.Join(dir, name), text, 0o644) // #nosec G306 -- public
}

func (p *puller) twice(name string) error {
	return fault.New(fault.Usage, "%s: two builds have a %s of their own: name one by --role or --arch, for a folder of its own", p.ref, name)
}
