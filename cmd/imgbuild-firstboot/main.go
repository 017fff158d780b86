// Command imgbuild-firstboot runs on a node at every boot: it makes the node a
// member of its cluster, once, and lets the kubelet start. With the word "status"
// it says how far the node has come, and exits with 1 where it is no member; with
// "livez" it asks the local API server whether it lives, for keepalived; with "images"
// it gives containerd, before that starts, the container images on board; with
// "install" it writes an image to the disk of a machine that booted for that, by network or from a medium;
// where others run kubeadm, it keeps the machine id with "identity", and has Ignition do
// with "ignition" what the machine's user data says where that is Ignition's.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/node/install"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	agent := firstboot.Agent{Runner: firstboot.Host{}, Console: os.Stdout, Credential: os.Getenv("CREDENTIALS_DIRECTORY")}
	installer := install.Installer{Runner: agent.Runner, Console: os.Stdout, Credential: agent.Credential}
	work := map[string]func(context.Context) error{"": agent.Run, "status": agent.Tell, "livez": agent.Livez, "images": agent.Images, "identity": agent.Identity, "ignition": agent.Ignition, "install": installer.Run}[strings.Join(os.Args[1:], " ")]
	if work == nil {
		fmt.Fprintln(os.Stderr, "usage: imgbuild-firstboot [status|livez|images|identity|ignition|install]")
		os.Exit(2)
	}
	err := work(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgbuild-firstboot:", err)
		os.Exit(1)
	}
}
