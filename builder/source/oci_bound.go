package source

import (
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Bounds of an image, in bytes. What tar layers hold packs to a third; beyond ratio, a layer
// is made to fill disks.
const (
	maxLayers = 32 << 30 // all of them, packed
	maxConfig = 16 << 20
	ratio     = 50
	slack     = 64 << 20 // which may pack as well as it likes
)

// nodeType is the config of what `imgbuild push` pushes.
const nodeType types.MediaType = "application/vnd.imgbuild.manifest.v1+json"

// bounded says what is wrong with an image by its manifest, before more of it is fetched.
func bounded(img v1.Image) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if m.Config.MediaType == nodeType {
		return fmt.Errorf("it is a node that `imgbuild push` pushed, not the system of one: `imgbuild pull` brings it")
	}
	if m.Config.Size < 0 || m.Config.Size > maxConfig {
		return fmt.Errorf("its config has %d bytes, at most %d", m.Config.Size, maxConfig)
	}
	left := int64(maxLayers)
	for i, d := range m.Layers {
		switch {
		case len(d.URLs) > 0:
			return fmt.Errorf("layer %d lies elsewhere than in the image", i)
		case !d.MediaType.IsLayer():
			return fmt.Errorf("layer %d is %q, no layer of a file system", i, d.MediaType)
		case d.Size < 0 || d.Size > left:
			return fmt.Errorf("layer %d has %d bytes, at most %d in all", i, d.Size, maxLayers)
		}
		left -= d.Size
	}
	return nil
}

// unpacked reads what a layer, or several, of packed bytes hold, as far as it is not too much.
type unpacked struct {
	io.Reader
	left, limit int64
}

func capped(r io.Reader, packed int64) *unpacked {
	limit := slack + ratio*packed
	return &unpacked{r, limit, limit}
}

// Read implements io.Reader.
func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, fmt.Errorf("it holds more than %d bytes, %d times what it has", u.limit, ratio)
	}
	return n, err
}
