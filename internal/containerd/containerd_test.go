package containerd

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func image(t *testing.T, name string, layers ...string) Image {
	t.Helper()
	var config ocispec.Image
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromString(l))
	}
	c, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(c), Size: int64(len(c))}})
	if err != nil {
		t.Fatal(err)
	}
	return Image{name, ocispec.MediaTypeImageManifest, m, c}
}

// TestSame wants the same bytes each time, whatever the order and the folder.
func TestSame(t *testing.T) {
	a, b, c := image(t, "r.io/a:1", "base", "a"), image(t, "r.io/b:1", "base", "b", "more"), image(t, "r.io/c:1")
	first, err := Make(t.Context(), []Image{a, b, c})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "/dev/shm")
	second, err := Make(t.Context(), []Image{c, b, a})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if len(first.Snapshots) != 4 { // the base once
		t.Errorf("snapshots %v", first.Snapshots)
	}
	t.Log(slices.Sorted(maps.Keys(first.Files)))
}
