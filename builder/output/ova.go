package output

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vmdk"
)

//go:embed ova.ovf
var ovfText string

// descriptor is the OVF descriptor (DSP0243 2.1) as vSphere exports one. Its virtual hardware is that
// of vSphere 6.7 U2 and later.
var descriptor = template.Must(template.New("ovf").Funcs(template.FuncMap{"xml": escape}).Parse(ovfText))

func escape(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// memory is what a machine of the role gets, in MiB: what kubeadm asks of a control plane is 1700.
var memory = map[string]int{"master": 4096, "worker": 2048}

// writeOVA writes an OVF package as one file (DSP0243 2.1, section 6.3): the descriptor, the
// manifest with the digests, the disk. It begins with what is known last, so the disk is
// a file of its own first.
func writeOVA(ctx context.Context, m *Made, dst string, _ bool) error {
	disk := dst + ".vmdk"
	defer os.Remove(disk) //nolint:errcheck // the scratch folder goes away anyhow
	digest, capacity := sha256.New(), int64(0)
	err := m.convert(disk, func(out, src *os.File, size int64) error {
		capacity = size
		return vmdk.Write(ctx, io.MultiWriter(out, digest), src, size, repro.UUID(m.ID, "vmdk"))
	})
	if err != nil {
		return err
	}
	return reading(disk, func(in *os.File, packed int64) error {
		name := strings.TrimSuffix(filepath.Base(dst), filepath.Ext(dst))
		var text bytes.Buffer
		if err := descriptor.Execute(&text, map[string]any{"Name": name, "FileSize": packed, "DiskSize": capacity,
			"Role": m.Role, "Kubernetes": m.Version, "Memory": memory[m.Role]}); err != nil {
			return fmt.Errorf("writing the OVF descriptor: %w", err)
		}
		manifest := fmt.Appendf(nil, "SHA256(%s.ovf)= %x\nSHA256(%s-disk1.vmdk)= %x\n", name, sha256.Sum256(text.Bytes()), name, digest.Sum(nil))
		return create(dst, func(out *os.File) error {
			w := tar.NewWriter(out)
			return errors.Join(
				add(ctx, w, name+".ovf", int64(text.Len()), &text),
				add(ctx, w, name+".mf", int64(len(manifest)), bytes.NewReader(manifest)),
				add(ctx, w, name+"-disk1.vmdk", packed, in),
				w.Close())
		})
	})
}
