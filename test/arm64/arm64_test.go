// Package arm64 builds nodes for another processor than the host's, pushes both
// architectures under one tag, and boots a cluster of the other one.
package arm64

import (
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/test/kit"
)

const arch = "arm64"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

// TestArm64 makes both architectures of a worker by one command, and a cluster of arm64.
func TestArm64(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	s := kit.NewSite(t)
	kit.Must(t, s.BuildTools(t.Context(), "../..", arch))
	kit.Must(t, s.Identity(t.Context()))
	images := filepath.Join(s.Dir, "out")
	server := httptest.NewServer(registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, 0))))
	defer server.Close()
	tag := strings.TrimPrefix(server.URL, "http://") + "/nodes:1"
	_, err := s.Imgbuild(t.Context(), "worker", "-o", images, "--format", "raw", "--arch", "amd64,arm64", "--push", tag)
	kit.Must(t, err)
	_, err = s.Imgbuild(t.Context(), "master", "-o", images, "--format", "raw", "--arch", arch)
	kit.Must(t, err)
	if d := cmp.Diff([]string{"linux/amd64", "linux/arm64"}, platforms(t, tag)); d != "" {
		t.Errorf("the index: %s", d)
	}
	pulled := filepath.Join(s.Dir, "pulled")
	_, err = s.Imgbuild(t.Context(), "pull", tag, "-o", pulled, "--arch", arch)
	kit.Must(t, err)
	_, err = s.Imgbuild(t.Context(), "verify", filepath.Join(pulled, "worker-arm64.raw"))
	kit.Must(t, err)

	s.Slow(t, 0.25) // a foreign processor is slower yet than one's own, emulated
	s.Pair(t, kit.Pair{Images: images, Arch: arch, Args: []string{"--arch", arch}, Info: "architecture", Want: arch, Via: qemu.SMBIOS, Limit: limit})
	t.Logf("timeline:\n%s", s.Timeline())
}

// platforms are those of a tag's index.
func platforms(t *testing.T, tag string) (out []string) {
	t.Helper()
	ref, err := name.ParseReference(tag)
	kit.Must(t, err)
	index, err := remote.Index(ref)
	kit.Must(t, err)
	m, err := index.IndexManifest()
	kit.Must(t, err)
	for _, d := range m.Manifests {
		out = append(out, d.Platform.String())
	}
	slices.Sort(out)
	return out
}
