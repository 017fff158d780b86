package output

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmware/govmomi/ovf"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/imgbuild/imgbuild/internal/disktest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// entries unpacks a tar whose entries are as every tar of ours: in their order.
func entries(t testing.TB, file string) (names []string, content map[string][]byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content = map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, content
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(repro.Epoch()) {
			t.Errorf("header %+v", h)
		}
		names = append(names, h.Name)
		if content[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOVA reads the package as vSphere's own library does.
func TestOVA(t *testing.T) {
	m := made(t)
	names, content := entries(t, write(t, m, "ova", "edge&1.ova"))
	if diff := cmp.Diff([]string{"edge&1.ovf", "edge&1.mf", "edge&1-disk1.vmdk"}, names); diff != "" {
		t.Fatal(diff)
	}
	want := fmt.Sprintf("SHA256(edge&1.ovf)= %x\nSHA256(edge&1-disk1.vmdk)= %x\n", sha256.Sum256(content[names[0]]), sha256.Sum256(content[names[2]]))
	if diff := cmp.Diff(want, string(content[names[1]])); diff != "" {
		t.Error(diff)
	}
	if vmdk, err := os.ReadFile(write(t, m, "vmdk", "x.vmdk")); err != nil || !bytes.Equal(vmdk, content[names[2]]) {
		t.Errorf("%v; the disk differs from the format vmdk", err)
	}
	e, err := ovf.Unmarshal(bytes.NewReader(content[names[0]]))
	if err != nil {
		t.Fatal(err)
	}
	if f := e.References; len(f) != 1 || f[0].Href != names[2] || f[0].Size != uint(len(content[names[2]])) {
		t.Errorf("files %+v", f)
	}
	if d := e.Disk.Disks; len(d) != 1 || d[0].Capacity != fmt.Sprint(20*mib) || !strings.HasSuffix(*d[0].Format, "#streamOptimized") {
		t.Errorf("disks %+v", d)
	}
	disk := filepath.Join(t.TempDir(), "disk.vmdk")
	if err := os.WriteFile(disk, content[names[2]], 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Compare(t, m.Disk, "driver=vmdk,file.filename="+disk)
}

// TestOVAHardware: the machine that vSphere would make of it.
func TestOVAHardware(t *testing.T) {
	for role, mem := range map[string]int64{"master": 4096, "worker": 2048} {
		m := made(t)
		m.Role = role
		_, content := entries(t, write(t, m, "ova", "node.ova"))
		e, err := ovf.Unmarshal(bytes.NewReader(content["node.ovf"]))
		if err != nil {
			t.Fatal(err)
		}
		spec, err := e.ToConfigSpecWithOptions(ovf.ToConfigSpecOptions{Strict: true})
		if err != nil {
			t.Fatal(err)
		}
		var devices []string
		for _, d := range spec.DeviceChange {
			devices = append(devices, strings.TrimPrefix(fmt.Sprintf("%T", d.GetVirtualDeviceConfigSpec().Device), "*types."))
		}
		slices.Sort(devices)
		if diff := cmp.Diff([]string{"ParaVirtualSCSIController", "VirtualDisk", "VirtualVmxnet3"}, devices); diff != "" {
			t.Error(diff)
		}
		got := []any{spec.Name, spec.Version, spec.GuestId, spec.Firmware, spec.NumCPUs, spec.MemoryMB}
		if diff := cmp.Diff([]any{"node", "vmx-15", "other4xLinux64Guest", string(types.GuestOsDescriptorFirmwareTypeEfi), int32(2), mem}, got); diff != "" {
			t.Error(diff)
		}
	}
}
