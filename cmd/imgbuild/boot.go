package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// bootOptions are `imgbuild boot`'s flags.
type bootOptions struct {
	config, via, net, ip string
	forward              []string
	memory, cpus         int
	keep                 string
}

// powerOffTime is how long a guest may take to end by itself.
const powerOffTime = 3 * time.Minute

// newBootCmd is `imgbuild boot`: one image as a machine in QEMU.
func newBootCmd() *cobra.Command {
	var o bootOptions
	cmd := &cobra.Command{
		Use:   "boot IMAGE",
		Short: "Boot an image in QEMU, with its console here",
		Long: `Boot an image in QEMU with its serial console on standard output. The image is
not written to: changes go to an overlay that is gone afterwards (see --keep).
Ctrl-C powers the machine off; a second Ctrl-C pulls the plug.

Machines that name the same --net are on one network (` + boottest.Subnet + `): the first
serves it, so give --forward to that one and stop it last. A cluster in two terminals:

  imgbuild boot out/master.qcow2 --config demo/master.yaml --net /tmp/demo.net --ip 10.0.0.10
  imgbuild boot out/worker.qcow2 --config demo/worker.yaml --net /tmp/demo.net --ip 10.0.0.11`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return boot(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "node config to pass to the machine")
	f.StringVar(&o.via, "via", qemu.SMBIOS, "how it is passed: smbios, fw_cfg or seed (a second disk)")
	f.StringVar(&o.net, "net", "", "socket of a network shared with other machines (default: a network of its own)")
	f.StringVar(&o.ip, "ip", "10.0.0.10", "address of the machine, by DHCP")
	f.StringArrayVar(&o.forward, "forward", []string{"127.0.0.1:6443=6443"}, "HOST:PORT=[IP:]PORT: forward a loopback address of this host to a port of the machine, or of another one on its network; empty for none (repeatable)")
	f.IntVar(&o.memory, "memory", 4096, "memory in MiB")
	f.IntVar(&o.cpus, "cpus", 2, "processors")
	f.StringVar(&o.keep, "keep", "", "folder that keeps the machine's disk for a next boot")
	return cmd
}

func boot(cmd *cobra.Command, image string, o bootOptions) (err error) {
	forwards, err := o.check()
	if err != nil {
		return err
	}
	node := boottest.Node{Name: "machine", Image: image, Via: o.via, IP: o.ip, Memory: o.memory, CPUs: o.cpus, Console: cmd.OutOrStdout()}
	if asJSON(cmd) { // standard output is for the result
		node.Console = cmd.ErrOrStderr()
	}
	if node.Config, err = readNodeConfig(o.config); err != nil {
		return err
	}
	if node.Arch, err = verify.Disk(image); err != nil {
		return fault.New(fault.Usage, "boot: no disk image: %w", err)
	}
	dir, err := os.MkdirTemp("", "imgbuild-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	socket, network, err := joinNet(cmd, dir, o, forwards)
	if err != nil {
		return err
	}
	if network != nil {
		defer network.Close() //nolint:errcheck // the process ends
	}
	if o.keep != "" {
		dir = o.keep
	}
	start := repro.Now()
	if err := bootNode(cmd.Context(), node, dir, socket); err != nil {
		return err
	}
	result := map[string]any{"image": image, "ip": o.ip, "seconds": int(repro.Now().Sub(start).Seconds())}
	return show(cmd, result, func(io.Writer) error { return nil }) // the console has said it all
}

// bootNode runs the machine until it ends, or powers it off when ctx ends.
func bootNode(ctx context.Context, node boottest.Node, dir, socket string) error {
	life, kill := context.WithCancel(context.WithoutCancel(ctx)) // not ctx: its end is a clean power-off
	defer kill()
	m, err := boottest.Start(life, node, dir, socket, false)
	if err != nil {
		return fault.Wrap(fault.Boot, err)
	}
	select {
	case <-m.Done():
		return fault.Wrap(fault.Boot, m.Err())
	case <-ctx.Done():
	}
	off, cancel := context.WithTimeout(life, powerOffTime)
	defer cancel()
	off, stop := signal.NotifyContext(off, os.Interrupt, syscall.SIGTERM) // the second Ctrl-C
	defer stop()
	return fault.Wrap(fault.Boot, m.PowerOff(off))
}

// check finds the mistakes that the command line alone shows, and returns the
// forwards, host address to guest address.
func (o *bootOptions) check() (map[string]string, error) {
	if o.via != qemu.SMBIOS && o.via != qemu.FWCfg && o.via != boottest.Seed {
		return nil, fault.New(fault.Usage, "--via %s: smbios, fw_cfg or seed", o.via)
	}
	_, err := vnet.MAC(o.ip)
	if _, subnet, perr := net.ParseCIDR(boottest.Subnet); err == nil && perr == nil && !subnet.Contains(net.ParseIP(o.ip)) {
		err = fmt.Errorf("%s is of another network", o.ip)
	}
	if err != nil {
		return nil, fault.New(fault.Usage, "--ip: %w; machines have addresses of %s", err, boottest.Subnet)
	}
	if o.memory < 512 || o.cpus < 1 {
		return nil, fault.New(fault.Usage, "--memory %d --cpus %d: a machine needs at least 512 MiB and one processor", o.memory, o.cpus)
	}
	forwards := map[string]string{}
	for _, text := range o.forward {
		if text == "" {
			continue
		}
		from, to, err := boottest.ParseForward(text, o.ip)
		if err != nil {
			return nil, fault.New(fault.Usage, "--forward: %w", err)
		}
		if was, ok := forwards[from]; ok && was != to {
			return nil, fault.New(fault.Usage, "--forward: %s leads to %s and to %s: take another port for one", from, was, to)
		}
		forwards[from] = to
	}
	return forwards, nil
}

// readNodeConfig reads and checks a node config, so that a mistake is told here
// and not on the machine's console.
func readNodeConfig(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file) // #nosec G304 -- the file that the user names
	if err != nil {
		return nil, fault.New(fault.Spec, "--config: %w", err)
	}
	if _, err := config.Parse(data); err != nil {
		return nil, fault.New(fault.Spec, "%s: %w", file, err)
	}
	return data, nil
}

// joinNet connects to the shared network, or serves it where nobody does; the
// network is nil when another machine serves it. The default forward is then
// left out: it is the server's.
func joinNet(cmd *cobra.Command, dir string, o bootOptions, forwards map[string]string) (string, *vnet.Net, error) {
	socket := o.net
	if socket == "" {
		socket = filepath.Join(dir, "net")
	}
	if !cmd.Flags().Changed("forward") && boottest.Served(socket) {
		forwards = nil
	}
	network, err := boottest.JoinNet(socket, forwards)
	if err != nil {
		return "", nil, fault.New(fault.Usage, "joining the network: %w", err)
	}
	if network == nil {
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "on the network %s, which another machine serves\n", socket)
	}
	return socket, network, err
}
