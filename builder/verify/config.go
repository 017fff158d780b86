package verify

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"

	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/vincent-petithory/dataurl"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/internal/diskview"
)

// Config reads a config for a host: it is one, holds no private key, and no token but
// where one is known to be there.
func Config(file string, token bool) (*Report, error) {
	r, f, err := reportOn(file, "config")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	var text []byte
	err = guard(func() error {
		if isFAT(f) {
			text, err = seedText(io.NewSectionReader(f, 0, r.Size))
		} else if text, err = io.ReadAll(io.LimitReader(f, maxConfig)); err == nil {
			text, err = unpacked(text)
		}
		if err == nil && !isISO(f) {
			err = readable(text)
		}
		return err
	})
	if err == nil {
		text, err = withResources(text)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if secret(text, !token) {
		r.say("secrets", path.Base(file), "looks like it has a private key or a bootstrap token in it (a token comes by the node config; --inline-join puts it here on purpose, and the manifest says so)")
	}
	return r, nil
}

// asked says whether the manifest beside a config says that it was to hold a token.
func asked(file string) bool {
	_, text, err := ManifestOf(filepath.Dir(file), filepath.Base(file))
	var m struct{ Join string }
	return err == nil && json.Unmarshal(text, &m) == nil && m.Join != ""
}

// errNoConfig is what a file is that is none of what imgbuild writes.
var errNoConfig = errors.New("it is nothing that imgbuild writes: want a disk in one of its formats, a netboot image, a system extension or its tar, a config of Ignition, Butane or cloud-init, or a seed disk")

// readable wants a config in the words of Ignition, Butane or cloud-init.
func readable(text []byte) error {
	var c map[string]any
	if bytes.HasPrefix(text, []byte("{")) {
		if err := json.Unmarshal(text, &c); err != nil {
			return fmt.Errorf("it is broken JSON: %w", err)
		}
		if _, ok := c["ignition"]; !ok {
			return errNoConfig
		}
		return nil
	}
	err := yaml.Unmarshal(text, &c)
	if bytes.HasPrefix(text, []byte("#cloud-config\n")) {
		return err
	}
	if _, ok := c["variant"]; err != nil || !ok {
		return errNoConfig
	}
	return nil
}

// isISO and isFAT tell a seed disk.
func isISO(f io.ReaderAt) bool { return hasAt(f, 16*2048+1, "CD001") }
func isFAT(f io.ReaderAt) bool { return hasAt(f, 82, "FAT32   ") && hasAt(f, 510, "\x55\xaa") }

// seedText is what a seed disk (FAT) of cloud-init's NoCloud says; it begins with the user data.
func seedText(disk *io.SectionReader) (all []byte, err error) {
	fsys, err := fat32.Read(diskview.View{SectionReader: disk}, disk.Size(), 0, sectorSize)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"user-data", "meta-data", "network-config"} {
		text, err := readWhole(fsys, name, maxConfig)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("a seed disk without %s: %w", name, errNoConfig)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(append(all, text...), '\n')
	}
	return all, nil
}

// maxConfig bounds a config once it is unpacked.
const maxConfig = 16 << 20

func unpacked(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxConfig))
}

// resources are the data URLs (RFC 2397) of an Ignition config.
var resources = regexp.MustCompile(`data:[A-Za-z0-9/;=.+-]*,[^"\s]*`)

// withResources is a config, its strings as a reader of JSON or YAML has them, and what
// its data URLs hold.
func withResources(text []byte) ([]byte, error) {
	all := bytes.Clone(text)
	var config yaml.Node
	if yaml.Unmarshal(text, &config) == nil { // as a seed disk's three files are not
		all = appendStrings(all, &config)
	}
	for _, m := range resources.FindAll(text, -1) {
		u, err := dataurl.DecodeString(string(m))
		if err != nil {
			continue // no URL of ours
		}
		data, err := unpacked(u.Data)
		if err != nil {
			return nil, err
		}
		all = append(append(all, '\n'), data...)
	}
	return all, nil
}

// appendStrings adds every key and value, a line or more for each.
func appendStrings(all []byte, n *yaml.Node) []byte {
	if n.Kind == yaml.ScalarNode {
		all = append(append(all, '\n'), n.Value...)
	}
	for _, child := range n.Content {
		all = appendStrings(all, child)
	}
	return all
}

// isConfig says whether the file looks like a config: JSON, YAML with the comment that
// ours begin with, gzip of it, or a seed disk.
func isConfig(f io.ReaderAt) bool {
	first := make([]byte, 2)
	if readAt(f, first, 0) != nil {
		return false
	}
	return bytes.ContainsAny(first[:1], "{#") || bytes.HasPrefix([]byte("variant:"), first) || bytes.Equal(first, []byte{0x1f, 0x8b}) || isISO(f) || isFAT(f)
}
