package builder

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"regexp"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/fault"
)

var documentBreak = regexp.MustCompile(`(?m)^---.*$`)

// networkManifest is the pod network's manifest that the spec names, nil where it
// names none. It must have the digest that the spec says and hold Kubernetes objects.
func networkManifest(m spec.Manifest) ([]byte, error) {
	if m.File == "" {
		return nil, nil
	}
	data, err := os.ReadFile(m.File) // #nosec G304 -- the file that the user named
	if err != nil {
		return nil, fault.New(fault.Spec, "cni.manifest.file: reading the manifest: %w", err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(data)); sum != m.SHA256 {
		return nil, fault.New(fault.Spec, "cni.manifest.sha256: %s has the digest %s, and the spec says %s: get the file that was meant, or write its digest once you have read it", m.File, sum, m.SHA256)
	}
	objects := 0
	for i, text := range documentBreak.Split(string(data), -1) {
		if len(bytes.TrimSpace(stripComments([]byte(text)))) == 0 {
			continue
		}
		var object struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(text), &object); err != nil || object.Kind == "" || object.APIVersion == "" {
			return nil, fault.New(fault.Spec, "cni.manifest.file: %s: document %d is no Kubernetes object with apiVersion and kind (%v): give what `kubectl apply -f` takes", m.File, i+1, err)
		}
		objects++
	}
	if objects == 0 {
		return nil, fault.New(fault.Spec, "cni.manifest.file: %s holds no object: give what `kubectl apply -f` takes", m.File)
	}
	return data, nil
}

var commentLine = regexp.MustCompile(`(?m)^\s*#.*$`)

func stripComments(text []byte) []byte { return commentLine.ReplaceAll(text, nil) }
