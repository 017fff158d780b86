//go:build linux

package initrd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWithoutDisk(t *testing.T) {
	for name, c := range map[string]struct {
		credentials map[string]string
		where       string
		args        []string
		units       string
		want        string // in them
		fails       string
		installs    bool
	}{
		"nothing said": {nil, memory, nil, "systemd-growfs@var.service systemd-repart.service var.mount", "Type=tmpfs", "", false},
		"memory":       {map[string]string{VarCredential: "memory\n"}, memory, nil, "systemd-growfs@var.service systemd-repart.service var.mount", "Type=tmpfs", "", false},
		"a disk":       {map[string]string{VarCredential: "/dev/vda"}, "/dev/vda", nil, "systemd-repart.service.d", "test -b /dev/vda &&", "", false},
		"an install":   {map[string]string{VarCredential: "/dev/vda", InstallCredential: "{}"}, memory, []string{"--unit=imgbuild-install.target"}, "systemd-growfs@var.service systemd-repart.service var.mount", "Type=tmpfs", "", false},
		"a word":       {map[string]string{VarCredential: "vda"}, "", nil, "", "", `"vda" is no device`, false},
		"a command":    {map[string]string{VarCredential: "/dev/vda; reboot"}, "", nil, "", "", "is no device", false},
		"a medium":     {nil, memory, []string{"--unit=imgbuild-install.target"}, "systemd-growfs@var.service systemd-networkd-wait-online.service systemd-repart.service var.mount", "Type=tmpfs", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			from, into := t.TempDir(), filepath.Join(t.TempDir(), "units")
			for file, text := range c.credentials {
				if err := os.WriteFile(filepath.Join(from, file), []byte(text), 0o400); err != nil {
					t.Fatal(err)
				}
			}
			where, args, err := withoutDisk(from, into, c.installs)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || where != c.where || cmp.Diff(c.args, args) != "" {
				t.Errorf("%q, %q, %v", where, args, err)
			}
			var names []string
			entries, err := os.ReadDir(into)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			for _, e := range entries {
				names = append(names, e.Name())
				for _, file := range []string{e.Name(), e.Name() + "/50-imgbuild-netboot.conf"} {
					if data, err := os.ReadFile(filepath.Join(into, file)); err == nil {
						text += string(data)
					}
				}
			}
			if strings.Join(names, " ") != c.units || !strings.Contains(text, c.want) {
				t.Errorf("%q, want %q\n%s", names, c.units, text)
			}
		})
	}
}

func TestLabelled(t *testing.T) {
	parts := blockDevices{{name: "vda"}, {name: "vda1", disk: "vda", part: VarLabel}, {name: "vdb"}, {name: "vdb2", disk: "vdb", part: VarLabel}, {name: "vdc"}}
	for disk, want := range map[string]string{"vda": "/dev/vda1", "vdb": "/dev/vdb2", "vdc": "", "ata-X": "/dev/vda1"} {
		if got := parts.labelled(VarLabel, disk); got != want {
			t.Errorf("%s: %q, want %q", disk, got, want)
		}
	}
}
