// Package qemu runs a virtual machine: UEFI firmware, one disk, one link, a
// serial console, and a channel on which commands can be run in the guest. It
// knows nothing of images or clusters.
//
// Secrets are handed over in files that only the owner can read, never on the
// command line, and are removed when the machine has started.
package qemu

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/imgbuild/imgbuild/internal/run"
)

// How credentials reach the guest (systemd's SYSTEM CREDENTIALS).
const (
	SMBIOS = "smbios"
	FWCfg  = "fw_cfg"
)

// Options describe a machine.
type Options struct {
	Disk, Format string            // image and its format; it is never written to
	DiskSize     int64             // bytes that the guest sees; 0 for the image's own
	Memory, CPUs int               // MiB, virtual processors
	Dir          string            // folder of the machine: its overlay lives on between starts
	Credentials  map[string][]byte // systemd credentials by name
	Via          string            // SMBIOS or FWCfg
	Seed         string            // raw image of a second disk; empty: none
	Net, MAC     string            // unix socket of the network; empty: no link
	Console      io.Writer         // what the guest says on its serial console
	Channel      bool              // let Run work
}

// Tools are what running a machine needs on the host, with their Debian packages.
var Tools = map[string]string{"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}

const firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// Machine is a running machine.
type Machine struct {
	opt     Options
	done    chan struct{}
	err     error
	stop    context.CancelFunc
	channel *channel
}

// Start starts the machine; ctx ends it without mercy.
func Start(ctx context.Context, o Options) (*Machine, error) {
	if err := run.Need(Tools); err != nil {
		return nil, err
	}
	if _, err := os.Stat(firmware); err != nil {
		return nil, &run.MissingToolError{Tool: firmware, Package: "ovmf"}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := prepareDisk(ctx, o); err != nil {
		return nil, fmt.Errorf("preparing the machine's disk: %w", err)
	}
	accel, err := accelerator(ctx)
	if err != nil {
		return nil, err
	}
	args, err := arguments(o, accel)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	m := &Machine{opt: o, done: make(chan struct{}), stop: stop}
	go func() {
		defer close(m.done)
		m.err = run.Run(ctx, run.Cmd{Name: "qemu-system-x86_64", Args: args, Stdout: o.Console, Env: []string{"TMPDIR=/var/tmp"}})
	}()
	if o.Channel {
		if m.channel, err = openChannel(ctx, m.path("channel.sock"), m.done); err != nil {
			stop()
			<-m.done
			return nil, errors.Join(err, m.err)
		}
	}
	return m, nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.opt.Dir, name) }

// prepareDisk makes the overlay, unless an earlier start did, and the firmware's variables.
func prepareDisk(ctx context.Context, o Options) error {
	overlay := filepath.Join(o.Dir, "disk.qcow2")
	if _, err := os.Stat(overlay); err == nil {
		return nil
	}
	disk, err := filepath.Abs(o.Disk)
	if err != nil {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2", "-F", o.Format, "-b", disk, overlay}
	if o.DiskSize > 0 {
		args = append(args, strconv.FormatInt(o.DiskSize, 10))
	}
	if err := run.Run(ctx, run.Cmd{Name: "qemu-img", Args: args}); err != nil {
		return err
	}
	vars, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		return &run.MissingToolError{Tool: "/usr/share/OVMF/OVMF_VARS_4M.fd", Package: "ovmf"}
	}
	return os.WriteFile(filepath.Join(o.Dir, "vars.fd"), vars, 0o600)
}

// arguments is QEMU's command line. It holds paths, never a secret.
func arguments(o Options, accel []string) ([]string, error) {
	in := func(name string) string { return filepath.Join(o.Dir, name) }
	args := append([]string{"-machine", "q35", "-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory), "-display", "none", "-nodefaults", "-no-user-config"}, accel...)
	args = append(args,
		"-drive", "if=pflash,format=raw,readonly=on,file="+firmware,
		"-drive", "if=pflash,format=raw,file="+in("vars.fd"),
		"-drive", "if=none,id=disk,format=qcow2,cache=unsafe,discard=unmap,file="+in("disk.qcow2"), "-device", "virtio-blk-pci,drive=disk",
		"-device", "virtio-rng-pci", "-serial", "stdio",
		"-qmp", "unix:"+in("qmp.sock")+",server=on,wait=off")
	if o.Seed != "" {
		args = append(args, "-drive", "if=none,id=seed,format=raw,readonly=on,file="+o.Seed, "-device", "virtio-blk-pci,drive=seed")
	}
	if o.Net != "" {
		args = append(args, "-netdev", "stream,id=net,server=off,addr.type=unix,addr.path="+o.Net, "-device", "virtio-net-pci,netdev=net,mac="+o.MAC)
	}
	if o.Channel {
		args = append(args, "-device", "virtio-serial-pci", "-chardev", "socket,id=channel,server=on,wait=off,path="+in("channel.sock"),
			"-device", "virtserialport,chardev=channel,name="+channelName)
	}
	creds, err := credentialArgs(o)
	return append(args, creds...), err
}

// credentialArgs writes each credential to a file of its own and names the files.
func credentialArgs(o Options) ([]string, error) {
	all := map[string][]byte{}
	for name, data := range o.Credentials {
		all[name] = data
	}
	if o.Channel {
		for name, data := range channelCredentials() {
			all[name] = data
		}
	}
	var args []string
	for name, data := range all {
		file := filepath.Join(o.Dir, "cred-"+name)
		if o.Via == FWCfg {
			args = append(args, "-fw_cfg", "name=opt/io.systemd.credentials/"+name+",file="+file)
		} else {
			data = []byte("io.systemd.credential.binary:" + name + "=" + base64.StdEncoding.EncodeToString(data))
			args = append(args, "-smbios", "type=11,path="+file)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return nil, err
		}
	}
	return args, nil
}

// Done is closed when the machine has ended, by whatever cause.
func (m *Machine) Done() <-chan struct{} { return m.done }

// PowerOff presses the power button, waits for the guest to end or ctx, and then
// pulls the plug.
func (m *Machine) PowerOff(ctx context.Context) error {
	defer m.stop()
	if err := qmp(ctx, m.path("qmp.sock"), "system_powerdown"); err != nil {
		return m.Kill()
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("the guest did not power off in time"), m.Kill())
	}
}

// Kill pulls the plug: what the guest has not written is lost.
func (m *Machine) Kill() error {
	m.stop()
	<-m.done
	return nil
}

// Err is why the machine ended, after Done.
func (m *Machine) Err() error { return m.err }

// Run runs a shell script as root in the guest, with nobody logged in, and
// returns its output (both streams) and exit code.
func (m *Machine) Run(ctx context.Context, script string) (output string, code int, err error) {
	if m.channel == nil {
		return "", 0, errors.New("the machine was started without a channel")
	}
	return m.channel.run(ctx, script)
}
