// Package boottest boots images as machines on one network and asks them what
// they do. It knows nothing of how an image was made: it takes files, node
// configs and checks.
package boottest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// The network that machines share unless told otherwise.
const (
	Subnet  = "10.0.0.0/24"
	Gateway = "10.0.0.1"
)

// Node describes one machine.
type Node struct {
	Name    string // also the folder of its overlay
	Arch    string // of its processor, as Go names it: amd64, arm64; empty: amd64
	Image   string // raw, qcow2, vmdk, vhd or vhdx
	Config  []byte // node config; empty: none
	Via     string // how it gets there: qemu.SMBIOS, qemu.FWCfg or Seed
	IP      string
	Memory  int // MiB
	CPUs    int
	Console io.Writer // nil: only the file console.log in the machine's folder

	Clock    time.Time // what its clock says at power-on; zero: the right time
	Pace     float64   // seconds that pass in it in one of the host's, where its processor is emulated; 0: one
	Rate     int64     // bytes in a second of its disk; 0: as fast as it can
	WriteLog string    // file that records what it writes to its disk (Linux' dm-log-writes format)

	Extra                   []string // raw images of more disks, read-only
	BIOS                    bool     // no UEFI firmware
	NoROM                   bool     // the network card carries no iPXE, which goes before what firmware itself can do
	CD, Stick               string   // raw images in a CD drive and on a USB stick, read-only
	Kernel, Initrd, Cmdline string   // of an image without a boot loader
	Ignition                string   // file with an Ignition config, for an OS that reads one
}

// Seed passes the node config on a disk of its own.
const Seed = "seed"

// diskSize is what a machine's disk has, so that /var has room to grow.
const diskSize = 24 << 30

// Machine is a booted node.
type Machine struct {
	*qemu.Machine
	Name, Dir string
}

// Start boots a node on the network whose socket is given; an empty one is no
// network. Its folder below dir lives on: a second Start is a second boot of the
// same disk. What carries the node config is gone as soon as the machine has it.
func Start(ctx context.Context, n Node, dir, socket string, channel bool) (*Machine, error) {
	mac, err := vnet.MAC(n.IP)
	if err != nil {
		return nil, err
	}
	o := qemu.Options{Arch: n.Arch, Disk: n.Image, Format: formatOf(n.Image), DiskSize: diskSize, Memory: n.Memory, CPUs: n.CPUs, Dir: filepath.Join(dir, n.Name),
		Via: qemu.SMBIOS, Net: socket, MAC: mac, Channel: channel, ChannelEnv: []string{"KUBECONFIG=/etc/kubernetes/admin.conf"}, Credentials: map[string][]byte{},
		Clock: n.Clock, Pace: n.Pace, Rate: n.Rate, WriteLog: n.WriteLog, Extra: n.Extra, BIOS: n.BIOS, NoROM: n.NoROM, CD: n.CD, Stick: n.Stick, Kernel: n.Kernel, Initrd: n.Initrd, Cmdline: n.Cmdline, Ignition: n.Ignition}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if o.UUID, err = machineID(o.Dir); err != nil {
		return nil, err
	}
	if err := passConfig(ctx, &o, n); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, errors.Join(err, removeSeed(o))
	}
	o.Console = log
	if n.Console != nil {
		o.Console = io.MultiWriter(log, n.Console)
	}
	m := &Machine{Name: n.Name, Dir: o.Dir}
	m.Machine, err = qemu.Start(ctx, o)
	if err := errors.Join(err, removeSeed(o)); err != nil { // a running QEMU has the seed open, and needs no name for it
		if m.Machine != nil {
			err = errors.Join(err, m.Kill())
		}
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		<-m.Done()
		_ = log.Close()
	}()
	return m, nil
}

// machineID is the system UUID of the machine in a folder: the same at each boot,
// and another for a copy of its disk in another folder. A node that finds neither
// its UUID nor its MAC address again does not start.
func machineID(dir string) (string, error) {
	whole, err := filepath.Abs(dir)
	return repro.UUID("machine", whole).String(), err
}

// passConfig puts the node config where the guest will look for it.
func passConfig(ctx context.Context, o *qemu.Options, n Node) error {
	switch {
	case len(n.Config) == 0:
	case n.Via == Seed:
		o.Seed = filepath.Join(o.Dir, "seed.img")
		return writeSeed(ctx, o.Seed, n.Config)
	default:
		if n.Via != "" {
			o.Via = n.Via
		}
		o.Credentials[config.Credential] = n.Config
	}
	return nil
}

// Give plugs a seed disk with a node config into the running machine, in the place of
// the one that Give has plugged in before.
func (m *Machine) Give(ctx context.Context, config []byte) error {
	file := filepath.Join(m.Dir, "given.img")
	if err := writeSeed(ctx, file, config); err != nil {
		return err
	}
	return errors.Join(m.Attach(ctx, file), os.Remove(file)) // QEMU has it open, and needs no name for it
}

func removeSeed(o qemu.Options) error {
	if o.Seed == "" {
		return nil
	}
	return os.Remove(o.Seed)
}

// formatOf is what QEMU calls the format of an image, by its ending.
func formatOf(image string) string {
	switch ending := filepath.Ext(image); ending {
	case ".qcow2", ".vmdk", ".vhdx":
		return ending[1:]
	case ".vhd":
		return "vpc"
	}
	return "raw"
}

// Sh runs a script in the guest and returns its standard output; a non-zero exit
// code is an error that carries what the script said on standard error.
func (m *Machine) Sh(ctx context.Context, script string) (string, error) {
	r, err := m.Run(ctx, script)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d", r.Code)
	}
	if err != nil {
		return r.Stdout + r.Stderr, fmt.Errorf("on %s: %s: %w: %s", m.Name, firstLine(script), err, strings.TrimSpace(r.Stdout+r.Stderr))
	}
	return strings.TrimSpace(r.Stdout), nil
}

// Until runs the script until it succeeds and returns its output then; when ctx
// ends, the error is that of the last try.
func (m *Machine) Until(ctx context.Context, every time.Duration, script string) (string, error) {
	var last error
	for {
		out, err := m.Sh(ctx, script)
		if err == nil {
			return out, nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-m.Done():
			return "", errors.Join(fmt.Errorf("on %s: the machine has ended", m.Name), m.Err(), last)
		case <-ctx.Done():
			return "", errors.Join(ctx.Err(), last)
		case <-time.After(every):
		}
	}
}

// Tail returns the last lines of the console, for an error message.
func (m *Machine) Tail(lines int) string {
	data, err := os.ReadFile(filepath.Join(m.Dir, "console.log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(data), "\r", "")), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	if len(line) > 100 {
		line = line[:100] + "..."
	}
	return line
}
