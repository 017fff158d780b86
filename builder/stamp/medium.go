package stamp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/install"
)

// Medium says whether an image is an install medium, which writes a disk.
func Medium(image string) (is bool, err error) {
	err = reading(image, func(d *disk) error {
		is = d.image != nil
		return nil
	})
	return is, err
}

// order adds to the credentials what an install medium is to do, with the digest of what it
// has. It is told a disk with whatever else it is told: its image is no node's by itself.
func (d *disk) order(ctx context.Context, s Stamp, credentials map[string][]byte) error {
	if d.image == nil || s.empty() {
		return nil
	}
	if s.Disk == "" {
		return fault.New(fault.Usage, "it is an install medium: say which disk it writes, by --disk or by the inventory's `disk`")
	}
	h, size := sha256.New(), d.image.Size()
	const chunk = 16 << 20
	for at := int64(0); at < size; at += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.Copy(h, io.NewSectionReader(d.image, at, min(chunk, size-at))); err != nil {
			return err
		}
	}
	text, err := json.Marshal(install.Order{Disk: s.Disk, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Again: s.Again})
	credentials[install.OrderCredential] = text
	return err
}
