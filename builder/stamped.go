package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/imgbuild/imgbuild/builder/inventory"
	"github.com/imgbuild/imgbuild/builder/stamp"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// StampOptions is one run of Stamp. Files are named; they are read here.
type StampOptions struct {
	Image    string
	Out      string   // the copy; with an inventory, the folder of the copies
	Config   string   // node config
	Hostname string   // in that; empty: what it says
	SSHKeys  []string // public keys, files of one line, in that; none: what it says
	Network  []string // systemd.network(5), .netdev, .link
	Disk     string   // device that an install medium writes
	Again    bool     // it does although that has its image already
	// An inventory, in the place of the five before: a copy for each machine of the image's role.
	Inventory string
}

// Stamp makes copies of an image that carry what is their machines' own, and returns them.
func Stamp(ctx context.Context, o StampOptions) ([]string, error) {
	if o.Inventory != "" {
		return stampAll(ctx, o)
	}
	if o.Config == "" && (o.Hostname != "" || len(o.SSHKeys) > 0) {
		return nil, fault.New(fault.Usage, "a host name and SSH keys are in the node config: add --config")
	}
	if err := o.checkDisk(); err != nil {
		return nil, err
	}
	m := inventory.Machine{Name: o.Hostname, Config: o.Config, Network: o.Network, Disk: o.Disk}
	for _, file := range o.SSHKeys {
		key, err := readDocument(file)
		if err != nil {
			return nil, fault.New(fault.Usage, "reading an SSH key: %w", err)
		}
		if strings.Contains(string(key), "PRIVATE KEY") {
			return nil, fault.New(fault.Usage, "%s is a private key: name its .pub file", file)
		}
		m.SSHAuthorizedKeys = append(m.SSHAuthorizedKeys, strings.TrimSpace(string(key)))
	}
	image, err1 := os.Stat(o.Image)
	out, err2 := os.Stat(o.Out)
	if err1 == nil && err2 == nil && os.SameFile(image, out) {
		return nil, fault.New(fault.Usage, "-o %s: a stamp makes a copy for one machine: name another file", o.Out)
	}
	return []string{o.Out}, stampOne(ctx, o, o.Out, &m)
}

// checkDisk wants a disk for an install medium, and for nothing else.
func (o StampOptions) checkDisk() error {
	medium, err := stamp.Medium(o.Image)
	switch {
	case err != nil:
		return err
	case o.Disk != "" && !medium:
		return fault.New(fault.Usage, "--disk: %s is no install medium (format iso), which alone writes a disk", o.Image)
	case o.Disk != "" && !inventory.IsDisk(o.Disk):
		return fault.New(fault.Usage, "--disk %s: want a device such as /dev/vda or /dev/disk/by-id/…", o.Disk)
	}
	return nil
}

// stampAll makes a copy for each machine of the image's role.
func stampAll(ctx context.Context, o StampOptions) (made []string, err error) {
	inv, err := inventory.Read(o.Inventory)
	if err != nil {
		return nil, err
	}
	role, err := stamp.Role(o.Image)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o750); err != nil {
		return nil, err
	}
	for i := range inv.Machines {
		m := &inv.Machines[i]
		if m.Role != role {
			continue
		}
		if m.Config == "" {
			return made, fault.New(fault.Spec, "%s: %s has no config", o.Inventory, m.Name)
		}
		dst := filepath.Join(o.Out, m.Name+filepath.Ext(o.Image))
		if err := stampOne(ctx, o, dst, m); err != nil {
			return made, fmt.Errorf("%s: %w", m.Name, err)
		}
		made = append(made, dst)
	}
	if len(made) == 0 {
		return nil, fault.New(fault.Spec, "%s: it names no %s, and the image is one's", o.Inventory, role)
	}
	return made, nil
}

func stampOne(ctx context.Context, o StampOptions, dst string, m *inventory.Machine) error {
	s, err := stamp.Of(m)
	if err != nil {
		return err
	}
	if len(s.Config)+len(s.Network)+len(o.Disk) == 0 {
		return fault.Wrap(fault.Usage, errors.New("there is nothing to stamp it with: name --config or --network"))
	}
	s.Again = o.Again
	return stamp.Write(ctx, o.Image, dst, s)
}
