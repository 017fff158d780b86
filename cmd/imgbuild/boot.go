package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// bootOptions are `imgbuild boot`'s flags.
type bootOptions struct {
	config, via, net, ip string
	forward              []string
	memory, cpus         int
	keep                 string
}

// newBootCmd is `imgbuild boot`: one image as a machine in QEMU.
func newBootCmd() *cobra.Command {
	var o bootOptions
	cmd := &cobra.Command{
		Use:   "boot IMAGE",
		Short: "Boot an image in QEMU, with its console here",
		Long: `Boot an image in QEMU with its serial console on standard output. The image is
not written to: changes go to an overlay that is gone afterwards (see --keep).
Ctrl-C powers the machine off.

Machines that name the same --net are on one network (` + boottest.Subnet + `): the first
serves it, so start the one with --forward first and stop it last.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return boot(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "", "node config to pass to the machine")
	f.StringVar(&o.via, "via", "smbios", "how it is passed: smbios, fw_cfg or seed (a second disk)")
	f.StringVar(&o.net, "net", "", "socket of a network shared with other machines (default: a network of its own)")
	f.StringVar(&o.ip, "ip", "10.0.0.10", "address of the machine, by DHCP")
	f.StringArrayVar(&o.forward, "forward", []string{"127.0.0.1:6443=6443"}, "HOST:PORT=PORT: forward a host address to a port of the machine; empty for none")
	f.IntVar(&o.memory, "memory", 4096, "memory in MiB")
	f.IntVar(&o.cpus, "cpus", 2, "processors")
	f.StringVar(&o.keep, "keep", "", "folder that keeps the machine's disk for a next boot")
	return cmd
}

func boot(cmd *cobra.Command, image string, o bootOptions) (err error) {
	if _, err := os.Stat(image); err != nil {
		return fault.New(fault.Usage, "boot: %w", err)
	}
	if o.via != "smbios" && o.via != "fw_cfg" && o.via != boottest.Seed {
		return fault.New(fault.Usage, "--via %s: smbios, fw_cfg or seed", o.via)
	}
	node := boottest.Node{Name: "machine", Image: image, Via: o.via, IP: o.ip, Memory: o.memory, CPUs: o.cpus, Console: cmd.OutOrStdout()}
	if node.Config, err = readNodeConfig(o.config); err != nil {
		return err
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "imgbuild-boot-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // scratch
	}
	socket, network, err := joinNet(cmd, dir, o)
	if err != nil {
		return err
	}
	if network != nil {
		defer network.Close() //nolint:errcheck // the process ends
	}
	machineCtx, kill := context.WithCancel(context.Background())
	defer kill()
	m, err := boottest.Start(machineCtx, node, dir, socket, false)
	if err != nil {
		return err
	}
	select {
	case <-m.Done():
		return fault.Wrap(fault.Boot, m.Err())
	case <-cmd.Context().Done():
	}
	off, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	return fault.Wrap(fault.Boot, m.PowerOff(off))
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

// joinNet connects to the shared network, or serves it where nobody does.
func joinNet(cmd *cobra.Command, dir string, o bootOptions) (string, *vnet.Net, error) {
	socket := o.net
	if socket == "" {
		socket = filepath.Join(dir, "net.sock")
	}
	if conn, err := net.Dial("unix", socket); err == nil {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "on the network %s, which another machine serves\n", socket)
		return socket, nil, conn.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		if err := os.Remove(socket); err != nil { // left by one that was killed
			return "", nil, fault.New(fault.Usage, "--net: %w", err)
		}
	}
	forwards := map[string]string{}
	for _, f := range o.forward {
		host, port, ok := strings.Cut(f, "=")
		if f == "" {
			continue
		}
		if !ok || config.CheckEndpoint(host) != nil {
			return "", nil, fault.New(fault.Usage, "--forward %s: want HOST:PORT=PORT, such as 127.0.0.1:6443=6443", f)
		}
		forwards[host] = net.JoinHostPort(o.ip, port)
	}
	n, err := vnet.Serve(vnet.Options{Subnet: boottest.Subnet, Gateway: boottest.Gateway, Forwards: forwards}, socket)
	return socket, n, err
}
