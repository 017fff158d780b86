package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Login is how long one image boots, in seconds: in the initrd, from the kernel's first
// word to the root's own systemd, and from power-on to the login prompts.
type Login struct {
	Name   string  `json:"name"`
	Initrd float64 `json:"initrdSeconds"`
	After  float64 `json:"secondsAfterPowerOn"`
}

// What is said on the console: the kernel's first words, each systemd's, and that the
// login prompts are there, or the first of them.
var (
	kernelBegins = regexp.MustCompile(`Linux version`)
	rootBegins   = regexp.MustCompile(`running in system mode`)
	afterInitrd  = regexp.MustCompile(`(?s)running in system mode.*running in system mode`) // where the initrd has a systemd, too
	prompts      = regexp.MustCompile(`Reached target .*getty\.target|login: `)
)

// logins boots the worker and the peers' images of the same node, without a network, in
// turns: medians.
func (b *runner) logins(ctx context.Context) ([]Login, error) {
	if b.peer == nil {
		return nil, nil
	}
	images := []struct {
		name, file string
		root       *regexp.Regexp
	}{
		{"worker, first boot", filepath.Join(b.k.Dir, "out", "worker.raw"), rootBegins},
		{"mkosi, same node: systemd in the initrd, verity", filepath.Join(b.peer.root, "node/out/image.raw"), afterInitrd},
		{"by hand, same node: initramfs-tools", filepath.Join(b.peer.root, "node/byhand.raw"), rootBegins},
	}
	took := make([][]Login, len(images))
	for range min(b.n, 3) {
		for i, image := range images {
			l, err := b.login(ctx, image.file, image.root)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", image.name, err)
			}
			l.Name = image.name
			fmt.Fprintf(os.Stderr, "%-60s %6.2f s to the login prompts, %.2f s in the initrd\n", l.Name, l.After, l.Initrd)
			took[i] = append(took[i], l)
		}
	}
	var out []Login
	for _, all := range took {
		slices.SortFunc(all, func(a, b Login) int { return cmp.Compare(a.After, b.After) })
		out = append(out, all[len(all)/2])
	}
	return out, nil
}

func (b *runner) login(ctx context.Context, image string, root *regexp.Regexp) (l Login, err error) {
	dir, err := os.MkdirTemp(b.k.Dir, "login-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch folder
	start := repro.Now()
	m, err := boottest.Start(ctx, boottest.Node{Name: "login", Image: image, IP: "10.0.0.9", Memory: 2048, CPUs: 2}, dir, "", false)
	if err != nil {
		return l, err
	}
	defer m.Kill() //nolint:errcheck // it is not needed any more
	var at []float64
	for _, said := range []*regexp.Regexp{kernelBegins, root, prompts} {
		if _, err := m.WaitConsole(ctx, said); err != nil {
			return l, fmt.Errorf("%w\n%s", err, m.Tail(20))
		}
		at = append(at, repro.Now().Sub(start).Seconds())
	}
	return Login{Initrd: at[1] - at[0], After: at[2]}, nil
}
