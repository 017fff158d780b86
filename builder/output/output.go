// Package output writes what was assembled as the formats that people ask for:
// one file per format, one table. It rebuilds nothing.
package output

import (
	"context"
	"os"

	"github.com/imgbuild/imgbuild/builder/host"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// Artefact is what an output is made of, besides the plan. One that no output needs
// is not made.
type Artefact string

// The artefacts.
const (
	Disk    Artefact = "disk"    // the assembled raw disk
	Netboot Artefact = "netboot" // the UKI that carries its root
	Medium  Artefact = "medium"  // the EFI system partition of an install medium, which takes the disk, too
	Payload Artefact = "payload" // the system extension with the Kubernetes programs
	Images  Artefact = "images"  // the one with the container images
	Archive Artefact = "archive" // the Kubernetes programs as a tar
)

// Reader is how an output is read back.
type Reader int

// The readers of builder/verify.
const (
	AsDisk Reader = iota
	AsMade        // the disk as it was made, which may still be written to
	AsExtension
	AsConfig
	AsArchive
	AsNetboot
)

// Made is the artefacts, as files in a scratch folder, and the node on a host.
type Made struct {
	Disk    string
	Netboot string
	Medium  string
	Payload string
	Images  string
	Archive string
	Host    *host.Node     // of the OS that a config is for; nil without a config
	Release string         // of the OS
	ID      string         // the plan's
	Role    string         // of the node
	Arch    string         // of the node, as Go calls it
	Version string         // of Kubernetes
	From    []host.Payload // where hosts find the payloads
}

// Format is one output format. Write makes the file dst; where it consumes what it is
// made of (Last), it runs after all others.
type Format struct {
	Name  string
	Doc   string
	Needs Artefact
	Reads Reader
	Last  bool
	Limit int64 // bytes that some clouds take at most; 0: no limit
	Write func(ctx context.Context, m *Made, dst string, compress bool) error
}

// userData is how much user data the tightest cloud takes (EC2).
const userData = 16 << 10

// All lists the formats.
func All() []Format {
	return []Format{
		{Name: "qcow2", Doc: "QEMU copy-on-write image, version 3", Needs: Disk, Write: writeQcow2},
		{Name: "vmdk", Doc: "VMware's disk for imports, streamOptimized", Needs: Disk, Write: writeVMDK},
		{Name: "ova", Doc: "virtual machine for vSphere: OVF descriptor, digests and the vmdk", Needs: Disk, Write: writeOVA},
		{Name: "vhd", Doc: "fixed VHD, for Azure", Needs: Disk, Write: writeVHD},
		{Name: "raw.zst", Doc: "the disk as zstd", Needs: Disk, Write: writeRawZstd},
		{Name: "raw.gz", Doc: "the disk as gzip", Needs: Disk, Write: writeRawGzip},
		{Name: "vhdx", Doc: "dynamic VHDX, for Hyper-V", Needs: Disk, Write: writeVHDX},
		{Name: "gce", Doc: "image for Google Compute Engine: disk.raw of whole GiB, as tar.gz", Needs: Disk, Write: writeGCE},
		{Name: "containerdisk", Doc: "container image of the qcow2, for KubeVirt: an OCI layout as a tar", Needs: Disk, Write: writeContainerDisk},
		{Name: "iso", Doc: "install medium, for CD and USB: ISO 9660 and GPT", Needs: Medium, Write: writeISO},
		{Name: "netboot", Doc: "UKI with the root in it, for UEFI HTTP boot, PXE and iPXE", Needs: Netboot, Reads: AsNetboot, Last: true, Write: writeNetboot},
		{Name: "butane", Doc: "the node on a host, as a Butane config", Needs: Payload, Reads: AsConfig, Write: writeButane},
		{Name: "ignition", Doc: "the node on a host, as an Ignition config", Needs: Payload, Reads: AsConfig, Limit: userData, Write: writeIgnition},
		{Name: "cloud-init", Doc: "the node on a Debian host, as user data of cloud-init", Needs: Payload, Reads: AsConfig, Limit: userData, Write: writeCloudInit},
		{Name: "nocloud", Doc: "the same as a seed disk of cloud-init's NoCloud, ISO 9660", Needs: Payload, Reads: AsConfig, Write: writeNoCloud},
		{Name: "nocloud-fat", Doc: "the same as a seed disk, FAT", Needs: Payload, Reads: AsConfig, Write: writeNoCloudFAT},
		{Name: "raw", Doc: "the disk byte for byte, sparse", Needs: Disk, Reads: AsMade, Last: true, Write: writeRaw},
		{Name: "sysext", Doc: "the Kubernetes programs for hosts, as a system extension", Needs: Payload, Reads: AsExtension, Last: true, Write: writeSysext},
		{Name: "sysext-tar", Doc: "the same as a tar, for hosts without system extensions", Needs: Archive, Reads: AsArchive, Last: true, Write: writeArchive},
		{Name: "sysext-images", Doc: "the role's container images for hosts, as a system extension", Needs: Images, Reads: AsExtension, Last: true, Write: writeImages},
	}
}

// Find returns the format of that name.
func Find(name string) (Format, error) {
	for _, f := range All() {
		if f.Name == name {
			return f, nil
		}
	}
	return Format{}, fault.New(fault.Spec, "unknown output format %q", name)
}

// Needed says which artefacts the formats of these names are made of.
func Needed(names []string) (map[Artefact]bool, error) {
	out := map[Artefact]bool{}
	for _, name := range names {
		f, err := Find(name)
		if err != nil {
			return nil, err
		}
		out[f.Needs] = true
	}
	out[Disk] = out[Disk] || out[Medium]
	return out, nil
}

func writeRaw(_ context.Context, m *Made, dst string, _ bool) error { return os.Rename(m.Disk, dst) }

func writeNetboot(_ context.Context, m *Made, dst string, _ bool) error {
	return os.Rename(m.Netboot, dst)
}

func writeSysext(_ context.Context, m *Made, dst string, _ bool) error {
	return os.Rename(m.Payload, dst)
}

func writeArchive(_ context.Context, m *Made, dst string, _ bool) error {
	return os.Rename(m.Archive, dst)
}

func writeImages(_ context.Context, m *Made, dst string, _ bool) error {
	return os.Rename(m.Images, dst)
}
