// Package how writes down how an image becomes a machine where virtual machines run: a
// script of the platform's own commands, or its manifest.
package how

import (
	"bytes"
	"embed"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/imgbuild/imgbuild/internal/fault"
)

//go:embed scripts
var scripts embed.FS

// Image is what is known of an image.
type Image struct {
	File   string // its path
	Format string // as verify calls it
	Role   string // master or worker
	Size   int64  // of the disk, bytes
}

// Platform is one place where machines run, and the formats that it takes, the best first.
type Platform struct {
	Name    string
	Doc     string
	Formats []string
	File    string // its template
}

// All lists the platforms.
func All() []Platform {
	return []Platform{
		{"libvirt", "virt-install, with the node config by QEMU's fw_cfg", []string{"qcow2", "raw"}, "libvirt.sh"},
		{"libvirt-xml", "the same as a domain of libvirt", []string{"qcow2", "raw"}, "libvirt.xml"},
		{"proxmox", "Proxmox VE: a template, and a machine of it", []string{"qcow2", "raw", "vmdk"}, "proxmox.sh"},
		{"vsphere", "govc: a template in vSphere, of the OVA", []string{"ova"}, "vsphere.sh"},
		{"kubevirt", "KubeVirt: a machine whose disk is a container image", []string{"containerdisk"}, "kubevirt.yaml"},
		{"openstack", "OpenStack: an image in Glance, and a server", []string{"qcow2", "raw"}, "openstack.sh"},
		{"aws", "AWS: a snapshot, and an AMI of it", []string{"raw", "vmdk", "vhd"}, "aws.sh"},
		{"azure", "Azure: an image of generation 2", []string{"vhd"}, "azure.sh"},
		{"gcp", "Google Compute Engine: an image", []string{"gce"}, "gcp.sh"},
		{"hyperv", "Hyper-V, in PowerShell", []string{"vhdx"}, "hyperv.ps1"},
	}
}

// Names are the platforms' names.
func Names() (out []string) {
	for _, p := range All() {
		out = append(out, p.Name)
	}
	return out
}

// view is what a template sees.
type view struct {
	Path, Base, Stem, Format, Role string
	Memory, CPUs                   int   // MiB, processors
	Disk                           int64 // GiB: what a node should have, or the image where that is more
}

// roomy is how large a disk a node should have, GiB: images, containers and logs come to /var.
const roomy = 40

// pathForm is what a path may be made of: it comes to stand in scripts.
var pathForm = regexp.MustCompile(`^[A-Za-z0-9_./+@-]+$`)

// Write returns the platform's script for an image.
func Write(platform string, image Image) (string, error) {
	i := slices.IndexFunc(All(), func(p Platform) bool { return p.Name == platform })
	if i < 0 {
		return "", fault.New(fault.Usage, "--how %s: want one of %s", platform, strings.Join(Names(), ", "))
	}
	p := All()[i]
	if !slices.Contains(p.Formats, image.Format) {
		return "", fault.New(fault.Usage, "%s: %s does not take %s: build with --format %s", image.File, p.Name, image.Format, p.Formats[0])
	}
	if image.Role != "master" && image.Role != "worker" {
		return "", fault.New(fault.Usage, "%s is no image of a master or a worker", image.File)
	}
	file, err := filepath.Abs(image.File)
	if err != nil {
		return "", err
	}
	if !pathForm.MatchString(file) {
		return "", fault.New(fault.Usage, "%q: want a path of letters, digits and _./+@- for a script", file)
	}
	base := filepath.Base(file)
	stem, _, _ := strings.Cut(base, ".")
	v := view{Path: file, Base: base, Stem: stem, Format: image.Format, Role: image.Role, Memory: 2048, CPUs: 2, Disk: max(roomy, image.Size>>30+1)}
	if image.Role == "master" {
		v.Memory = 4096
	}
	t, err := template.ParseFS(scripts, "scripts/"+p.File+".tmpl")
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = t.Execute(&out, v)
	return out.String(), err
}
