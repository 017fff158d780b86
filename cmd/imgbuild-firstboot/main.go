// Command imgbuild-firstboot runs on a node at every boot: it makes the node a
// member of its cluster, once, and lets the kubelet start. As `imgbuild-firstboot livez` it asks
// the local API server whether it lives.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/imgbuild/imgbuild/internal/node/firstboot"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	agent := firstboot.Agent{Runner: firstboot.Host{}, Console: os.Stdout, Credential: os.Getenv("CREDENTIALS_DIRECTORY")}
	work := agent.Run
	if len(os.Args) > 1 && os.Args[1] == "livez" { // keepalived's question
		work = agent.Livez
	}
	err := work(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgbuild-firstboot:", err)
		os.Exit(1)
	}
}
