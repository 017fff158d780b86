package builder

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/fault"
)

func TestNetworkManifest(t *testing.T) {
	give := func(text string) spec.Manifest {
		file := filepath.Join(t.TempDir(), "calico.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return spec.Manifest{File: file, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}
	}
	const good = "# the operator's\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n--- \napiVersion: apps/v1\nkind: DaemonSet\n---\n"
	if data, err := networkManifest(give(good)); err != nil || string(data) != good {
		t.Errorf("%q, %v", data, err)
	}
	if data, err := networkManifest(spec.Manifest{}); data != nil || err != nil {
		t.Errorf("no manifest: %q, %v", data, err)
	}
	changed := give(good)
	changed.SHA256 = strings.Repeat("a", 64)
	for want, m := range map[string]spec.Manifest{
		"no such file":              {File: filepath.Join(t.TempDir(), "none.yaml"), SHA256: strings.Repeat("a", 64)},
		"and the spec says aaaa":    changed,
		"document 1 is no":          give("hello: world\n"),
		"document 2 is no":          give("apiVersion: v1\nkind: List\n---\n\tx\n"),
		"holds no object":           give("---\n# nothing\n"),
		"document 1 is no Kubernet": give("<html>404</html>\n"),
	} {
		if _, err := networkManifest(m); err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != fault.Spec {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
