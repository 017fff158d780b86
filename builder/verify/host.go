package verify

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/erofs/go-erofs"
)

// Extension reads a system extension (UAPI Extension Image specification): it is called
// as it says itself, brings nothing but what may lie below /usr, and the programs of a
// node are in it.
func Extension(file string) (*Report, error) {
	f, err := os.Open(file) // #nosec G304 -- the image that the caller names
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r := &Report{Format: "sysext", Size: info.Size(), Findings: []Finding{}}
	err = guard(func() error {
		fsys, err := erofs.Open(f)
		if err != nil {
			return err
		}
		return r.readExtension(fsys, strings.TrimSuffix(path.Base(file), ".raw"))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func (r *Report) readExtension(fsys fs.FS, name string) error {
	release := "usr/lib/extension-release.d/extension-release." + name
	if text, err := fs.ReadFile(fsys, release); err != nil || !regexp.MustCompile(`(?m)^ID=`).Match(text) {
		r.say("extension", release, "does not say for which system the extension is (%v)", err)
	}
	programs := []string{"kubeadm", "kubelet", "kubectl", "crictl", "containerd", "runc"}
	if _, err := fs.Stat(fsys, imagesDir); err == nil {
		programs = nil // it brings the container images
	}
	for _, program := range programs {
		if _, err := fs.Stat(fsys, "usr/bin/"+program); err != nil {
			r.say("programs", program, "is not in the extension")
		}
	}
	return fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading %s: %w", p, err)
		}
		if p != "." && p != "usr" && !strings.HasPrefix(p, "usr/") {
			r.say("extension", p, "lies outside of /usr")
		}
		return r.checkEntry(fsys, p, d)
	})
}

// Config reads a config for a host: it holds no private key, and no token but where one
// is known to be there.
func Config(file string, token bool) (*Report, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- the file that the caller names
	if err != nil {
		return nil, err
	}
	r := &Report{Format: "config", Size: int64(len(text)), Findings: []Finding{}}
	if text, err = unpacked(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if text, err = withResources(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if secret(text, !token) {
		r.say("secrets", path.Base(file), "looks like it has a private key or a bootstrap token in it")
	}
	return r, nil
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

// packed are the data URLs (RFC 2397) of an Ignition config that are not plain text.
var packed = regexp.MustCompile(`data:[a-z/;+-]*;base64,([A-Za-z0-9+/=]+)`)

// withResources is a config and what its data URLs hold.
func withResources(text []byte) ([]byte, error) {
	all := bytes.Clone(text)
	for _, m := range packed.FindAllSubmatch(text, -1) {
		data, err := base64.StdEncoding.DecodeString(string(m[1]))
		if err != nil {
			continue // no URL of ours
		}
		if data, err = unpacked(data); err != nil {
			return nil, err
		}
		all = append(append(all, '\n'), data...)
	}
	return all, nil
}
