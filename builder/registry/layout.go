package registry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/imgbuild/imgbuild/internal/chunk"
)

// Media types. What lies in files of well-known formats has theirs, so that other tools find it.
const (
	indexType    = "application/vnd.imgbuild.index.v1" // artifactType of what a tag names
	imageType    = "application/vnd.imgbuild.image.v1" // artifactType of a build
	manifestType = "application/vnd.imgbuild.manifest.v1+json"
	chunkType    = "application/vnd.imgbuild.chunk.v1+zstd"
	fileType     = "application/vnd.imgbuild.file.v1" // a file as it is
)

var documentTypes = map[string]types.MediaType{
	"spdx": "application/spdx+json", "cyclonedx": "application/vnd.cyclonedx+json",
	"provenance": "application/vnd.in-toto+json", "dsse": "application/vnd.dsse.envelope.v1+json",
}

// Annotations.
const (
	titleKey   = "org.opencontainers.image.title"
	versionKey = "org.opencontainers.image.version" // of Kubernetes
	roleKey    = "dev.imgbuild.role"
	idKey      = "dev.imgbuild.id" // the plan's
	rootKey    = "dev.imgbuild.root-hash"
	chunkKey   = "dev.imgbuild.chunk.file" // of which file a chunk is
	offsetKey  = "dev.imgbuild.chunk.offset"
	sizeKey    = "dev.imgbuild.chunk.size" // unpacked
)

// maxManifest is what registries take at most, in bytes.
const maxManifest = 4 << 20

// maxPacked is how large a packed chunk may be: zstd adds little to what does not pack.
const maxPacked = chunk.Max + 64<<10

// piece is one layer: a chunk of a file, or all of it where size is 0.
type piece struct {
	file       string
	at, size   int64 // unpacked
	descriptor v1.Descriptor
}

// layer makes a piece's descriptor whole.
func (p *piece) layer(format string) v1.Descriptor {
	d := p.descriptor
	if p.size > 0 {
		d.MediaType = chunkType
		d.Annotations = map[string]string{chunkKey: p.file, offsetKey: strconv.FormatInt(p.at, 10), sizeKey: strconv.FormatInt(p.size, 10)}
		return d
	}
	d.MediaType = cmp.Or(documentTypes[format], fileType)
	d.Annotations = map[string]string{titleKey: p.file}
	return d
}

// imageManifest writes the manifest of a build whose own one is config.
func imageManifest(l *listing, config v1.Descriptor, pieces []piece) ([]byte, error) {
	config.MediaType, config.Annotations = manifestType, map[string]string{titleKey: l.title()}
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: imageType, Config: config, Annotations: l.annotations()}
	for _, p := range pieces {
		m.Layers = append(m.Layers, p.layer(l.listed[p.file].Format))
	}
	return bounded(m)
}

func bounded(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("the OCI manifest has %d bytes, and registries take %d: push images one by one (`imgbuild push out/worker.raw …`)", len(text), maxManifest)
	}
	return text, err
}

func (l *listing) annotations() map[string]string {
	a := map[string]string{titleKey: l.name, roleKey: l.Role, versionKey: l.Kubernetes, idKey: l.ID}
	if l.RootHash != "" {
		a[rootKey] = l.RootHash
	}
	return a
}

// entry is the line of an index that names a build's manifest.
func (l *listing) entry(manifest []byte) (v1.Descriptor, error) {
	hash, size, err := v1.SHA256(bytes.NewReader(manifest))
	return v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: hash, Size: size, ArtifactType: imageType,
		Platform: &v1.Platform{OS: "linux", Architecture: l.Arch}, Annotations: map[string]string{titleKey: l.name, roleKey: l.Role}}, err
}

// indexManifest writes the index of the old entries and the new ones, which take the places of
// those for the same platform with the same name.
func indexManifest(old, fresh []v1.Descriptor) ([]byte, error) {
	all := slices.Clone(fresh)
	for _, d := range old {
		if !slices.ContainsFunc(fresh, func(f v1.Descriptor) bool { return same(d, f) }) {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b v1.Descriptor) int {
		return cmp.Or(cmp.Compare(a.Annotations[titleKey], b.Annotations[titleKey]), cmp.Compare(a.Platform.Architecture, b.Platform.Architecture))
	})
	return bounded(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, ArtifactType: indexType, Manifests: all})
}

func same(a, b v1.Descriptor) bool {
	return a.Annotations[titleKey] == b.Annotations[titleKey] && a.Platform.Architecture == b.Platform.Architecture
}

// parseIndex reads an index that indexManifest could have written; any other is an error.
func parseIndex(text []byte) ([]v1.Descriptor, error) {
	var m v1.IndexManifest
	if len(text) > maxManifest {
		return nil, fmt.Errorf("the index has %d bytes, at most %d", len(text), maxManifest)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	if m.SchemaVersion != 2 || m.MediaType != types.OCIImageIndex || m.ArtifactType != indexType {
		return nil, fmt.Errorf("it holds %q of the type %q, no builds of imgbuild", m.MediaType, m.ArtifactType)
	}
	for i, d := range m.Manifests {
		switch {
		case d.MediaType != types.OCIManifestSchema1 || d.ArtifactType != imageType:
			return nil, fmt.Errorf("entry %d is %q of the type %q, no build", i, d.MediaType, d.ArtifactType)
		case d.Platform == nil || d.Platform.OS != "linux" || !plainName.MatchString(d.Platform.Architecture):
			return nil, fmt.Errorf("entry %d has no platform that a node can be of", i)
		case !plainName.MatchString(d.Annotations[titleKey]) || !plainName.MatchString(d.Annotations[roleKey]):
			return nil, fmt.Errorf("entry %d is called %q, role %q", i, d.Annotations[titleKey], d.Annotations[roleKey])
		case d.Size <= 0 || d.Size > maxManifest || d.Digest.Algorithm != "sha256":
			return nil, fmt.Errorf("entry %d has %d bytes, at most %d, and the digest %s", i, d.Size, maxManifest, d.Digest)
		case slices.ContainsFunc(m.Manifests[:i], func(o v1.Descriptor) bool { return same(o, d) }):
			return nil, fmt.Errorf("%s for %s is there twice", d.Annotations[titleKey], d.Platform.Architecture)
		}
	}
	if len(m.Manifests) == 0 {
		return nil, errors.New("the index is empty")
	}
	return m.Manifests, nil
}

// parseManifest reads a build's manifest, but for what only its listing can tell.
func parseManifest(text []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != types.OCIManifestSchema1 || m.ArtifactType != imageType || m.Config.MediaType != manifestType:
		return nil, fmt.Errorf("it holds %q of the type %q, no build of imgbuild", m.MediaType, m.ArtifactType)
	case m.Config.Size <= 0 || m.Config.Size > maxSmall || m.Config.Digest.Algorithm != "sha256":
		return nil, fmt.Errorf("the manifest has %d bytes, at most %d, and the digest %s", m.Config.Size, maxSmall, m.Config.Digest)
	}
	return m, nil
}

// pieces reads the layers of a build; each must be of a file of the listing's and in its bounds.
func (l *listing) pieces(layers []v1.Descriptor) ([]piece, error) {
	var out []piece
	ends := map[string]int64{} // by file: how far it is covered
	for i, d := range layers {
		p, err := l.piece(d)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		end, begun := ends[p.file]
		if p.at < end || begun && p.size == 0 {
			return nil, fmt.Errorf("layer %d: of %s, bytes from %d on are there twice", i, p.file, p.at)
		}
		ends[p.file] = p.at + p.size
		out = append(out, p)
	}
	return out, nil
}

func (l *listing) piece(d v1.Descriptor) (p piece, err error) {
	p.descriptor = d
	if d.Digest.Algorithm != "sha256" || d.Size < 0 {
		return p, fmt.Errorf("%d bytes with the digest %s", d.Size, d.Digest)
	}
	if d.MediaType != chunkType {
		p.file = d.Annotations[titleKey]
		return p, l.small(p, d)
	}
	p.file = d.Annotations[chunkKey]
	if !l.isOutput(p.file) {
		return p, fmt.Errorf("a chunk of %q, which is no output of %s", p.file, l.name)
	}
	var err1, err2 error
	p.at, err1 = number(d.Annotations[offsetKey])
	p.size, err2 = number(d.Annotations[sizeKey])
	total := l.listed[p.file].Size
	switch {
	case err1 != nil || err2 != nil:
		return p, errors.Join(err1, err2)
	case p.size < 1 || p.size > chunk.Max || d.Size > maxPacked:
		return p, fmt.Errorf("a chunk of %d bytes, %d packed, at most %d", p.size, d.Size, chunk.Max)
	case p.at > total || p.size > total-p.at:
		return p, fmt.Errorf("%d bytes at %d of %s, which has %d", p.size, p.at, p.file, total)
	}
	return p, nil
}

// small checks a file that travels as it is.
func (l *listing) small(p piece, d v1.Descriptor) error {
	f, listed := l.listed[p.file]
	switch {
	case d.MediaType != cmp.Or(documentTypes[f.Format], fileType):
		return fmt.Errorf("%q is of the type %q", p.file, d.MediaType)
	case l.isOutput(p.file) || !listed && !l.beside(p.file):
		return fmt.Errorf("%q is no file that lies beside %s", p.file, l.name)
	case d.Size > maxSmall:
		return fmt.Errorf("%s has %d bytes, at most %d", p.file, d.Size, maxSmall)
	case listed && (d.Size != f.Size || d.Digest.Hex != f.SHA256):
		return fmt.Errorf("%s is not what %s lists", p.file, l.title())
	}
	return nil
}

// number reads a number as FormatInt writes it, of nothing below zero.
func number(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%q is no number of bytes", text)
	}
	return n, nil
}

// wanted says whether a build is one that was asked for; an empty word asks for all.
func wanted(d v1.Descriptor, role, arch string) bool {
	return (role == "" || d.Annotations[roleKey] == role) && (arch == "" || d.Platform.Architecture == arch)
}

// blobPath is where a registry keeps a blob (Distribution 1.1).
func blobPath(repository string, h v1.Hash) string {
	return path.Join("/v2", repository, "blobs", h.String())
}
