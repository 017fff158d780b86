// Package qemu runs a virtual machine: UEFI firmware, one disk, one link, a
// serial console, and a channel on which commands can be run in the guest. It
// knows nothing of images or clusters.
//
// Secrets are handed over in files that only the owner can read, never on the
// command line, and are removed as soon as QEMU has read them.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/imgbuild/imgbuild/internal/run"
)

// How credentials reach the guest (systemd's SYSTEM CREDENTIALS).
const (
	SMBIOS = "smbios"
	FWCfg  = "fw_cfg"
)

// Options describe a machine.
type Options struct {
	Arch         string            // of its processor, as Go names it: amd64, arm64; empty: amd64
	Disk, Format string            // image and its format, as QEMU calls it; empty: no disk
	DiskSize     int64             // bytes of the overlay; 0 for the image's own
	Memory, CPUs int               // MiB, virtual processors
	UUID         string            // SMBIOS system UUID, by which guests know the machine; empty: QEMU's, which is none
	Dir          string            // folder of the machine: its overlay lives on between starts
	Credentials  map[string][]byte // systemd credentials by name
	Via          string            // SMBIOS or FWCfg
	Ignition     string            // file with an Ignition config, which the guest finds by fw_cfg; empty: none
	Seed         string            // raw image of a second disk; empty: none
	Extra        []string          // raw images of more disks, read-only
	BIOS         bool              // no UEFI firmware
	CD, Stick    string            // raw images in a CD drive and on a USB stick, read-only; empty: none
	Kernel       string            // kernel that is booted instead of what the disk has; empty: none
	Initrd       string            // its RAM disk
	Cmdline      string            // and its command line
	Net, MAC     string            // unix socket of the network; empty: no link
	NoROM        bool              // the network card carries no iPXE: firmware boots from the network by itself
	Pace         float64           // seconds that pass in it in one of the host's, where its processor is emulated; 0: one
	Clock        time.Time         // what the machine's clock says at power-on; zero: the right time
	Rate         int64             // bytes in a second that the disk gives and takes; 0: as fast as it can
	WriteLog     string            // file that records what is written to the disk, in order (Linux' dm-log-writes format); empty: none
	Console      io.Writer         // what the guest says on its serial console; nil: nobody listens
	Channel      bool              // let Run work
	ChannelEnv   []string          // NAME=VALUE for what Run runs; neither blanks nor quotes
}

const (
	qmpSocket     = "qmp"
	channelSocket = "channel"
)

var errEnded = errors.New("the machine has ended")

// Machine is a running machine.
type Machine struct {
	sockets string
	console *console
	done    chan struct{}
	err     error // of QEMU; read it after done
	stop    context.CancelFunc
	channel *channel
	plugged bool // something is in the port
}

// Start starts the machine and returns when it runs; ctx ends it without mercy,
// also later. A tool that is missing is a run.MissingToolError.
func Start(ctx context.Context, o Options) (*Machine, error) {
	b, err := boardOf(o.Arch)
	if err != nil {
		return nil, err
	}
	if err := b.need(); err != nil {
		return nil, err
	}
	f, err := b.firmware()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := prepareDisk(ctx, o, f); err != nil {
		return nil, fmt.Errorf("preparing the machine's disk: %w", err)
	}
	a, err := accelerator(ctx, b)
	if err != nil {
		return nil, err
	}
	env := []string{"TMPDIR=/var/tmp"}
	if o.Pace != 0 && a == tcg {
		slow, err := paced(o.Pace)
		if err != nil {
			return nil, err
		}
		env = append(env, slow...)
	}
	sockets, err := os.MkdirTemp("", "imgbuild-vm-") // 0700; a socket's path must be short, and Dir's may be long
	if err != nil {
		return nil, err
	}
	args, err := arguments(o, b, a, f, sockets)
	if err != nil {
		removeCredentials(o.Dir)
		return nil, errors.Join(err, os.RemoveAll(sockets))
	}
	return launch(ctx, o, b.program, args, env, sockets)
}

func launch(ctx context.Context, o Options, program string, args, env []string, sockets string) (*Machine, error) {
	life, stop := context.WithCancel(ctx)
	m := &Machine{sockets: sockets, console: newConsole(o.Console), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(m.done)
		m.err = run.Run(life, run.Cmd{Name: program, Args: args, Stdout: m.console, Env: env})
		removeCredentials(o.Dir)
		if err := os.RemoveAll(sockets); err != nil {
			m.err = errors.Join(m.err, err)
		}
	}()
	if err := m.connect(ctx, o); err != nil {
		stop()
		<-m.done
		return nil, fmt.Errorf("starting the machine: %w", errors.Join(err, m.err))
	}
	removeCredentials(o.Dir)
	return m, nil
}

// connect waits until QEMU answers and opens the channel.
func (m *Machine) connect(ctx context.Context, o Options) error {
	if err := m.qmp(ctx, "query-status", nil); err != nil {
		return err
	}
	if !o.Channel {
		return nil
	}
	conn, err := dial(ctx, m.socket(channelSocket), m.done)
	if err != nil {
		return err
	}
	m.channel = newChannel(conn)
	go func() {
		<-m.done
		m.channel.close()
	}()
	return nil
}

func (m *Machine) socket(name string) string { return filepath.Join(m.sockets, name) }

// Done is closed when the machine has ended, by whatever cause.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Err is why the machine ended, after Done; nil when it was powered off.
func (m *Machine) Err() error { return m.err }

// PowerOff presses the power button, waits for the guest to end or ctx, and then
// pulls the plug. A machine that has ended is off.
func (m *Machine) PowerOff(ctx context.Context) error {
	defer m.stop()
	select {
	case <-m.done:
		return nil
	default:
	}
	if err := m.qmp(ctx, "system_powerdown", nil); err != nil && !errors.Is(err, errEnded) {
		return errors.Join(fmt.Errorf("powering off: %w", err), m.Kill())
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("the guest did not power off in time"), m.Kill())
	}
}

// Reset presses the reset button: the guest boots again at once, and a Run under
// way gets no answer.
func (m *Machine) Reset(ctx context.Context) error { return m.qmp(ctx, "system_reset", nil) }

// Kill pulls the plug: what the guest has not written is lost.
func (m *Machine) Kill() error {
	m.stop()
	<-m.done
	return nil
}

// Run runs a bash script as root in the guest, with nobody logged in: once its
// service manager is up, and one script at a time. An exit code that is not 0 is
// no error. A script that outlives ctx's time is ended in the guest too.
func (m *Machine) Run(ctx context.Context, script string) (Result, error) {
	if m.channel == nil {
		return Result{}, errors.New("the machine was started without a channel")
	}
	return m.channel.run(ctx, script)
}
