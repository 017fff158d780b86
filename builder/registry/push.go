package registry

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/internal/chunk"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/sparse"
)

// Pushed says what a push did.
type Pushed struct {
	Reference string   `json:"reference"` // by digest
	Builds    []string `json:"builds"`    // NAME for ARCH
	Files     int      `json:"files"`
	Blobs     int      `json:"blobs"`
	Moved     int      `json:"moved"`      // of these
	Bytes     int64    `json:"bytes"`      // of the blobs, as they travel
	MovedSize int64    `json:"movedBytes"` // of these
}

// pusher is one push.
type pusher struct {
	*client
	to   *remote.Pusher
	pack *chunk.Packer

	mu   sync.Mutex
	seen map[v1.Hash]bool
	sum  Pushed
}

// Push sends the builds whose manifests lie in dir to a tag; with only, the build that
// lists that output, with no other output. What else the tag names stays, if it is of
// another name or architecture. Only blobs that the registry lacks are sent.
func Push(ctx context.Context, dir, only, reference string, o Options) (*Pushed, error) {
	builds, err := local(dir, only)
	if err != nil {
		return nil, err
	}
	for _, l := range builds { // nothing is sent before all of it is what it should be
		if err := l.check(ctx, dir, o); err != nil {
			return nil, err
		}
	}
	c, err := connect(ctx, reference, true, o)
	if err != nil {
		return nil, err
	}
	tag, ok := c.ref.(name.Tag)
	if !ok {
		return nil, fault.New(fault.Usage, "%s is a digest: push to a tag", reference)
	}
	p := &pusher{client: c, seen: map[v1.Hash]bool{}}
	if p.pack, err = chunk.NewPacker(); err != nil {
		return nil, err
	}
	if p.to, err = remote.NewPusher(c.options(ctx)...); err != nil {
		return nil, err
	}
	old, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	var fresh []v1.Descriptor
	for _, l := range builds {
		entry, err := p.build(ctx, dir, l)
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, entry)
		p.sum.Builds = append(p.sum.Builds, l.name+" for "+l.Arch)
	}
	text, err := indexManifest(old, fresh)
	if err != nil {
		return nil, err
	}
	if err := p.to.Push(ctx, tag, raw{text, types.OCIImageIndex}); err != nil {
		return nil, p.said(ctx, "pushing to", err)
	}
	hash, _, err := v1.SHA256(bytes.NewReader(text))
	p.sum.Reference = tag.Context().Digest(hash.String()).Name()
	return &p.sum, err
}

// local reads the manifests in a folder.
func local(dir, only string) ([]*listing, error) {
	files, err := manifests(dir)
	if err != nil {
		return nil, err
	}
	var out []*listing
	for _, path := range files {
		text, err := os.ReadFile(path) // #nosec G304 -- the folder that the user names
		if err != nil {
			return nil, err
		}
		l, err := parseListing(filepath.Base(path), text)
		if err != nil {
			return nil, fault.Wrap(fault.Verify, err)
		}
		if only != "" {
			if !l.isOutput(only) {
				continue
			}
			l.Outputs = slices.DeleteFunc(l.Outputs, func(f file) bool { return f.File != only })
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Usage, "%s: no manifest (NAME%s) is there that lists it: build it first", filepath.Join(dir, only), manifestEnding)
	}
	return out, nil
}

// check holds every file against the manifest: what somebody stamped, or changed in any
// other way, stays here.
func (l *listing) check(ctx context.Context, dir string, o Options) error {
	defer o.Report.Stage("checking " + l.name)()
	if l.Join != "" {
		return fault.New(fault.Usage, "%s holds, or leads to, what hosts join a cluster by (--%s): that is for them alone; build it without", l.title(), l.Join)
	}
	for _, f := range slices.Concat(l.Outputs, l.Documents) {
		if err := ctx.Err(); err != nil {
			return err
		}
		sum, size, err := measure(filepath.Join(dir, f.File))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fault.New(fault.Usage, "%s lists %s, which is not there; `imgbuild push IMAGE` pushes one image alone", l.title(), f.File)
		case err != nil:
			return err
		case sum != f.SHA256 || size != f.Size:
			return fault.New(fault.Verify, "%s has %d bytes and sha256 %s, its manifest says %d and %s: a stamped or changed image is not pushed", filepath.Join(dir, f.File), size, sum, f.Size, f.SHA256)
		}
	}
	return nil
}

func measure(path string) (sum string, size int64, err error) {
	f, err := os.Open(path) // #nosec G304 -- a plain name in the user's folder
	if err != nil {
		return "", 0, err
	}
	defer f.Close() //nolint:errcheck // read only
	digest, size, err := sparse.SHA256(f)
	return hex.EncodeToString(digest), size, err
}

// current is what the tag names now.
func (p *pusher) current(ctx context.Context) ([]v1.Descriptor, error) {
	d, err := remote.Get(p.ref, p.options(ctx)...)
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, p.said(ctx, "asking for", err)
	}
	old, err := parseIndex(d.Manifest)
	if err != nil {
		return nil, fault.New(fault.Usage, "%s is in use: %w; choose another tag", p.ref, err)
	}
	return old, nil
}

// build sends a build, its manifest last, and returns its entry in the index.
func (p *pusher) build(ctx context.Context, dir string, l *listing) (v1.Descriptor, error) {
	pieces, err := p.smallFiles(ctx, dir, l)
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, f := range l.Outputs {
		chunks, err := p.chunks(ctx, filepath.Join(dir, f.File), f)
		if err != nil {
			return v1.Descriptor{}, err
		}
		pieces = append(pieces, chunks...)
	}
	p.sum.Files += len(l.Outputs) + 1
	config, err := p.blob(ctx, l.text)
	if err != nil {
		return v1.Descriptor{}, err
	}
	text, err := imageManifest(l, config, pieces)
	if err != nil {
		return v1.Descriptor{}, fault.Wrap(fault.Usage, err)
	}
	entry, err := l.entry(text)
	if err != nil {
		return v1.Descriptor{}, err
	}
	at := p.ref.Context().Digest(entry.Digest.String())
	return entry, p.said(ctx, "pushing to", p.to.Push(ctx, at, raw{text, types.OCIManifestSchema1}))
}

// smallFiles sends the documents, the signatures and the lock.
func (p *pusher) smallFiles(ctx context.Context, dir string, l *listing) ([]piece, error) {
	var names []string
	for _, f := range l.Documents {
		names = append(names, f.File)
	}
	for _, f := range slices.Concat(l.Outputs, l.Documents, []file{{File: l.title()}}) {
		names = append(names, f.File+signatureEnding)
	}
	var out []piece
	for _, name := range append(names, lockName) {
		text, err := os.ReadFile(filepath.Join(dir, name)) // #nosec G304 -- a plain name in the user's folder
		if errors.Is(err, fs.ErrNotExist) && l.beside(name) {
			continue
		}
		if err != nil {
			return nil, err
		}
		d, err := p.blob(ctx, text)
		if err != nil {
			return nil, err
		}
		p.sum.Files++
		out = append(out, piece{file: name, descriptor: d})
	}
	return out, nil
}

// chunks cuts a file and sends its chunks, several at once.
func (p *pusher) chunks(ctx context.Context, path string, f file) ([]piece, error) {
	in, err := os.Open(path) // #nosec G304 -- as above
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // read only
	step := "pushing " + f.File
	defer p.report.Stage(step)()
	var out []*piece
	var done atomic.Int64
	group, sub := errgroup.WithContext(ctx)
	group.SetLimit(max(8, 2*runtime.GOMAXPROCS(0))) // some wait for the network, some pack
	err = chunk.Cut(sub, in, f.Size, func(at int64, plain []byte) error {
		one := &piece{file: f.File, at: at, size: int64(len(plain))}
		out = append(out, one)
		mine := bytes.Clone(plain)
		group.Go(func() (err error) {
			one.descriptor, err = p.blob(sub, p.pack.Pack(mine))
			p.report.Progress(step, done.Add(one.size), f.Size, "B")
			return err
		})
		return nil
	})
	if failed := group.Wait(); failed != nil {
		err = failed // it is why the cutting ended
	}
	pieces := make([]piece, len(out))
	for i, one := range out {
		pieces[i] = *one
	}
	return pieces, err
}

// blob sends bytes, unless the registry has them.
func (p *pusher) blob(ctx context.Context, text []byte) (v1.Descriptor, error) {
	hash, size, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, err
	}
	l := &layer{hash: hash, text: text}
	err = p.to.Upload(ctx, p.ref.Context(), l)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.seen[hash] {
		p.seen[hash] = true
		p.sum.Blobs++
		p.sum.Bytes += size
	}
	if l.read.Load() && err == nil {
		p.sum.Moved++
		p.sum.MovedSize += size
	}
	return v1.Descriptor{Digest: hash, Size: size}, p.said(ctx, "pushing to", err)
}

// layer is a blob as the library wants it.
type layer struct {
	hash v1.Hash
	text []byte
	read atomic.Bool // it was sent
}

var _ v1.Layer = (*layer)(nil)

func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Size() (int64, error)                 { return int64(len(l.text)), nil }
func (l *layer) MediaType() (types.MediaType, error)  { return fileType, nil }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return l.Compressed() }
func (l *layer) Compressed() (io.ReadCloser, error) {
	l.read.Store(true)
	return io.NopCloser(bytes.NewReader(l.text)), nil
}

// raw is a manifest as the library wants it.
type raw struct {
	text  []byte
	media types.MediaType
}

var _ remote.Taggable = raw{}

// RawManifest implements remote.Taggable.
func (r raw) RawManifest() ([]byte, error)        { return r.text, nil }
func (r raw) MediaType() (types.MediaType, error) { return r.media, nil }
