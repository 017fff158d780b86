package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// prompts is what systemd says when the login prompts are there, or the first of them.
var prompts = regexp.MustCompile(`Reached target .*getty\.target|login: `)

// logins boots the worker and the peers' images of the same node, without a network, in
// turns, and says how many seconds after power-on there are login prompts: medians.
func (b *runner) logins(ctx context.Context) ([]Stage, error) {
	if b.peer == nil {
		return nil, nil
	}
	images := []struct{ name, file string }{
		{"worker, first boot", filepath.Join(b.k.Dir, "out", "worker.raw")},
		{"mkosi, same node", filepath.Join(b.peer.root, "node/out/image.raw")},
		{"by hand, same node", filepath.Join(b.peer.root, "node/byhand.raw")},
	}
	took := make([][]float64, len(images))
	for range min(b.n, 3) {
		for i, image := range images {
			seconds, err := b.login(ctx, image.file)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", image.name, err)
			}
			fmt.Fprintf(os.Stderr, "%-60s %6.2f s to the login prompts\n", image.name, seconds)
			took[i] = append(took[i], seconds)
		}
	}
	var out []Stage
	for i, image := range images {
		slices.Sort(took[i])
		out = append(out, Stage{image.name, took[i][len(took[i])/2]})
	}
	return out, nil
}

func (b *runner) login(ctx context.Context, image string) (float64, error) {
	dir, err := os.MkdirTemp(b.k.Dir, "login-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch folder
	start := repro.Now()
	m, err := boottest.Start(ctx, boottest.Node{Name: "login", Image: image, IP: "10.0.0.9", Memory: 2048, CPUs: 2}, dir, "", false)
	if err != nil {
		return 0, err
	}
	defer m.Kill() //nolint:errcheck // it is not needed any more
	if _, err := m.WaitConsole(ctx, prompts); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, m.Tail(20))
	}
	return repro.Now().Sub(start).Seconds(), nil
}
