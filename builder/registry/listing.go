package registry

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Endings and names of the files that lie beside the outputs.
const (
	manifestEnding  = ".manifest.json"
	signatureEnding = ".sig"
	lockName        = "imgbuild.lock"
)

// maxOutputs is how large an image's outputs may be together, in bytes; maxSmall how large
// every other file may be.
const (
	maxOutputs = 64 << 30
	maxSmall   = 64 << 20
)

// listing is the manifest that a build writes, as far as it matters here.
type listing struct {
	ID         string `json:"id"`
	Role       string `json:"role"`
	Arch       string `json:"arch"`
	Kubernetes string `json:"kubernetes"`
	RootHash   string `json:"rootHash"`
	Join       string `json:"join"`
	Outputs    []file `json:"outputs"`
	Documents  []file `json:"documents"`

	name   string          // of the build
	text   []byte          // all of it
	listed map[string]file // outputs and documents
}

// file is one line of it.
type file struct {
	Format string `json:"format"`
	File   string `json:"file"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,250}$`) // no folder, nothing hidden
	hexSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// parseListing reads the manifest that is called title, and believes nothing in it that could
// lead out of a folder or has no bound.
func parseListing(title string, text []byte) (*listing, error) {
	l := &listing{text: text, listed: map[string]file{}}
	name, ok := strings.CutSuffix(title, manifestEnding)
	if !ok || !plainName.MatchString(title) || name == "" {
		return nil, fmt.Errorf("%q is not what a manifest is called", title)
	}
	l.name = name
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%s: %w", title, err)
	}
	if !plainName.MatchString(l.Role) || !plainName.MatchString(l.Arch) {
		return nil, fmt.Errorf("%s: role %q, architecture %q", title, l.Role, l.Arch)
	}
	left := int64(maxOutputs)
	for i, f := range append(l.Outputs[:len(l.Outputs):len(l.Outputs)], l.Documents...) {
		limit := int64(maxSmall)
		if i < len(l.Outputs) {
			limit = left
			left -= f.Size
		}
		_, twice := l.listed[f.File]
		switch {
		case !plainName.MatchString(f.File) || f.File == lockName || strings.HasSuffix(f.File, manifestEnding) || strings.HasSuffix(f.File, signatureEnding):
			return nil, fmt.Errorf("%s: %q is not what an output or document is called", title, f.File)
		case twice:
			return nil, fmt.Errorf("%s: lists %s twice", title, f.File)
		case f.Size < 0 || f.Size > limit:
			return nil, fmt.Errorf("%s: %s has %d bytes, at most %d", title, f.File, f.Size, limit)
		case !hexSHA256.MatchString(f.SHA256):
			return nil, fmt.Errorf("%s: %s has the sha256 %q", title, f.File, f.SHA256)
		}
		l.listed[f.File] = f
	}
	return l, nil
}

// isOutput says whether the file is cut into chunks.
func (l *listing) isOutput(name string) bool {
	for _, f := range l.Outputs {
		if f.File == name {
			return true
		}
	}
	return false
}

// beside says whether the file may lie beside the outputs although the manifest does not list
// it: a signature, or the lock.
func (l *listing) beside(name string) bool {
	signed, ok := strings.CutSuffix(name, signatureEnding)
	_, listed := l.listed[signed]
	return name == lockName || ok && (listed || signed == l.name+manifestEnding)
}

// title is the manifest's file.
func (l *listing) title() string { return l.name + manifestEnding }

// manifests are the manifests in a folder.
func manifests(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "*"+manifestEnding))
}
