// Command demo is `make demo`: it builds a master and a worker image, boots both,
// and shows the cluster that stands then, with how long each stage took.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/test/kit"
)

func main() {
	bin := flag.String("bin", "bin", "folder with imgbuild and its node programs")
	out := flag.String("out", "demo", "folder for images, identity and machines; what it held is replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demo(ctx, os.Stdout, *bin, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// clock tells the time of each stage as it ends.
type clock struct {
	w    io.Writer
	last time.Time
	said []string
}

func (c *clock) stage(name string) {
	now := repro.Now()
	line := fmt.Sprintf("%-44s %6.0f s", name, now.Sub(c.last).Seconds())
	c.last, c.said = now, append(c.said, line)
	fmt.Fprintln(c.w, "==", line)
}

func demo(ctx context.Context, w io.Writer, bin, out string) error {
	k := kit.Kit{Bin: bin, Dir: out, Said: os.Stderr}
	c := &clock{w: w, last: repro.Now()}
	for _, dir := range []string{"machines", "cluster"} { // the images and their lock stay
		if err := os.RemoveAll(filepath.Join(out, dir)); err != nil {
			return err
		}
	}
	if err := k.Identity(ctx); err != nil {
		return err
	}
	images := map[string]string{}
	for _, role := range []string{"master", "worker"} {
		image, err := k.Image(ctx, role, "qcow2")
		if err != nil {
			return err
		}
		images[role] = image
		c.stage("image of the " + role)
	}
	cluster, err := k.Up(context.WithoutCancel(ctx), images)
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := cluster.Watch(ctx, c.stage); err != nil {
		return err
	}
	text, err := cluster.Master.Sh(ctx, "kubectl get nodes -o wide; echo; kubectl get pods -A -o wide")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n\n", text)
	if err := cluster.Stop(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	c.stage("clean stop")
	fmt.Fprintln(w)
	for _, line := range c.said {
		fmt.Fprintln(w, line)
	}
	return nil
}
