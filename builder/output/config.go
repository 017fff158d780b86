package output

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/imgbuild/imgbuild/internal/esp"
	"github.com/imgbuild/imgbuild/internal/iso9660"
	"github.com/imgbuild/imgbuild/internal/tree"
)

func writeButane(_ context.Context, m *Made, dst string, _ bool) error {
	text, err := m.Host.Butane(m.Release, m.From...)
	return save(dst, text, err)
}

func writeIgnition(_ context.Context, m *Made, dst string, _ bool) error {
	text, err := m.Host.Ignition(m.Release, m.From...)
	return save(dst, text, err)
}

// writeCloudInit writes user data; compressed, cloud-init unpacks it itself.
func writeCloudInit(_ context.Context, m *Made, dst string, compress bool) error {
	text, err := m.Host.CloudInit(m.From...)
	if err != nil || !compress {
		return save(dst, text, err)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression) // its header has no name and no time
	if err == nil {
		_, err = w.Write(text)
		err = errors.Join(err, w.Close())
	}
	return save(dst, b.Bytes(), err)
}

func save(dst string, text []byte, err error) error {
	if err != nil {
		return err
	}
	return os.WriteFile(dst, text, 0o644) // #nosec G306 -- a config holds no secret
}

// seed is the files of cloud-init's data source NoCloud.
func seed(m *Made) (map[string][]byte, error) {
	user, err := m.Host.CloudInit(m.From...)
	return map[string][]byte{
		"user-data":      user,
		"meta-data":      fmt.Appendf(nil, "instance-id: imgbuild-%s\n", m.ID[:12]),
		"network-config": []byte("version: 2\nethernets:\n  uplink:\n    match: {name: \"e*\"}\n    dhcp4: true\n"),
	}, err
}

func writeNoCloud(_ context.Context, m *Made, dst string, _ bool) error {
	files, err := seed(m)
	if err != nil {
		return err
	}
	return iso9660.Write(dst, "cidata", files)
}

// seedVolume is the number of a FAT seed's volume.
const seedVolume = 0xc1da7a00

func writeNoCloudFAT(ctx context.Context, m *Made, dst string, _ bool) error {
	files, err := seed(m)
	if err != nil {
		return err
	}
	content := map[string]tree.Content{}
	for name, data := range files {
		content[name] = tree.Bytes(data)
	}
	return create(dst, func(f *os.File) error {
		if err := f.Truncate(esp.MinSize); err != nil {
			return err
		}
		return esp.Write(ctx, f, 0, esp.MinSize, content, esp.Options{Label: "CIDATA", VolumeID: seedVolume})
	})
}
