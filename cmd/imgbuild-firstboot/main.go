// Command imgbuild-firstboot runs on a node at every boot: it makes the node a
// member of its cluster, once, and lets the kubelet start. With the word "status"
// it says how far the node has come, and exits with 1 where it is no member.
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
	var err error
	switch words := os.Args[1:]; {
	case len(words) == 0:
		err = join()
	case len(words) == 1 && words[0] == "status":
		err = status()
	default:
		fmt.Fprintln(os.Stderr, "usage: imgbuild-firstboot [status]")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imgbuild-firstboot:", err)
		os.Exit(1)
	}
}

func join() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	agent := firstboot.Agent{Runner: firstboot.Host{}, Console: os.Stdout, Credential: os.Getenv("CREDENTIALS_DIRECTORY")}
	return agent.Run(ctx)
}

func status() error {
	s, err := firstboot.ReadStatus(firstboot.StatusFile)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(os.Stdout, s.Screen()); err != nil || s.Phase == firstboot.Committed && s.Cause == "" {
		return err
	}
	os.Exit(1)
	return nil
}
