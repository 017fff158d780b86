package boottest

import (
	"context"
	"errors"
	"os"

	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// seedSize is the smallest disk that FAT32 likes.
const seedSize = 40 << 20

// writeSeed makes a seed disk: one FAT file system labelled IMGBUILD with node.yaml.
func writeSeed(ctx context.Context, file string, config []byte) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600) // #nosec G304 -- in the machine's own folder
	if err != nil {
		return err
	}
	if err := f.Truncate(seedSize); err != nil {
		return errors.Join(err, f.Close())
	}
	err = esp.Write(ctx, f, 0, seedSize, map[string]tree.Content{"node.yaml": tree.Bytes(config)}, esp.Options{Label: "IMGBUILD", VolumeID: 0x1a6b0001})
	return errors.Join(err, f.Close())
}
