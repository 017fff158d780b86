package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// runner times things in a scratch folder that already holds both images.
type runner struct {
	k    kit.Kit
	n    int
	line int    // of what is changed
	peer *mkosi // nil: not measured
}

// timed runs one thing once and says what it used.
type timed func(context.Context, *run.Usage) error

// more are packages that make the root large, to see what memory a build takes then.
const more = "redeclipse-data"

func cores() int { return runtime.NumCPU() }

// row is a line of the table.
type row struct {
	name string
	runs int
	do   timed
}

// patches are two patch versions of Kubernetes, between which a build goes to and fro.
var patches = []string{"1.37.1", "1.37.2"}

// times runs everything in turns, so that a slow minute of the machine hits all of it.
func (b *runner) times(ctx context.Context) ([]Time, error) {
	rows, err := b.rows(ctx)
	if err != nil {
		return nil, err
	}
	peers, err := b.peers(ctx)
	if err != nil {
		return nil, err
	}
	rows = append(rows, peers...)
	used := make([][]run.Usage, len(rows))
	for turn := range b.n {
		for i, row := range rows {
			if turn >= row.runs {
				continue
			}
			unix.Sync() // nobody waits for what another row left to be written
			var u run.Usage
			if err := row.do(ctx, &u); err != nil {
				return nil, fmt.Errorf("%s: %w", row.name, err)
			}
			used[i] = append(used[i], u)
			fmt.Fprintf(os.Stderr, "%-60s %6.2f s\n", row.name, u.Wall.Seconds())
		}
	}
	var found []Time
	for i, row := range rows {
		found = append(found, median(row.name, used[i]))
		if i == 0 { // the yardstick is cp's fastest run: memory that was never touched makes others slow
			found[i].Wall = used[i][0].Wall.Seconds()
		}
		found[i].Ratio = found[i].Wall / found[0].Wall
	}
	return found, nil
}

// rows are imgbuild's, below that of cp. What they need is in the cache then.
func (b *runner) rows(ctx context.Context) ([]row, error) {
	out := filepath.Join(b.k.Dir, "out")
	image, copied := filepath.Join(out, "worker.raw"), filepath.Join(b.k.Dir, "copy")
	changed := func(dir, formats, packages string) timed {
		return func(ctx context.Context, u *run.Usage) error {
			b.line++
			file := filepath.Join(b.k.Dir, "changed.yaml")
			base := "{}"
			if packages != "" {
				base = "{packages: [" + packages + "]}"
			}
			text := fmt.Appendf(nil, "apiVersion: imgbuild.dev/v1alpha1\nkind: Node\nbase: %s\nboot:\n  sysctls:\n    vm.max_map_count: %d\n", base, 262144+b.line)
			if err := os.WriteFile(file, text, 0o644); err != nil { // #nosec G306 -- a scratch file
				return err
			}
			return b.imgbuild("worker", "-f", file, "-o", dir, "--lock", filepath.Join(dir, "imgbuild.lock"), "--format", formats)(ctx, u)
		}
	}
	root := filepath.Join(b.k.Dir, "root")
	if err := rootOf(ctx, image, root); err != nil {
		return nil, err
	}
	small, large := filepath.Join(b.k.Dir, "changed"), filepath.Join(b.k.Dir, "large")
	var first run.Usage
	for dir, packages := range map[string]string{small: "", large: more} {
		if err := changed(dir, "raw", packages)(ctx, &first); err != nil { // makes the lock and the base
			return nil, err
		}
	}
	patched := func(turn int) timed {
		v := patches[turn%len(patches)]
		dir := filepath.Join(b.k.Dir, "patched") // each goes on with the other's folder, and has a lock of its own
		return b.imgbuild("worker", "-o", dir, "--lock", filepath.Join(b.k.Dir, v, "imgbuild.lock"), "--format", "raw", "--set", "kubernetes.version="+v)
	}
	for turn := range patches {
		if err := patched(turn)(ctx, &first); err != nil {
			return nil, err
		}
	}
	turn := 0
	return []row{
		{"`cp` of the worker's raw image", b.n, func(ctx context.Context, u *run.Usage) error {
			defer os.Remove(copied) //nolint:errcheck // a scratch file
			return run.Run(ctx, run.Cmd{Name: "cp", Args: []string{image, copied}, Used: u})
		}},
		{"`cp`, `sha256sum` and `veritysetup format` of it at once", b.n, b.least(image, root)},
		{"no change", b.n, b.imgbuild("worker", "-o", out, "--format", "raw")},
		{"one line changed: raw, verity", b.n, changed(small, "raw", "")},
		{"one line changed: qcow2, verity", b.n, changed(small, "qcow2", "")},
		{"one line changed, 1 GB more on the root", b.n, changed(large, "raw", more)},
		{"another patch version of Kubernetes, its parts in the cache", b.n, func(ctx context.Context, u *run.Usage) error {
			turn++
			return patched(turn-1)(ctx, u)
		}},
		{"four images at once: master and two workers, one line changed, and a worker of the patch version before", b.n, b.four},
		{"`imgbuild verify` of the raw image", b.n, b.imgbuild("verify", image)},
		{"cold: base laid out anew, packages and parts in the cache", 1, b.cold},
	}, nil
}

// least is what is to be done for an image whose every block is in a hash tree, by others'
// tools: it is copied and digested, and its root file system's blocks are hashed.
func (b *runner) least(image, root string) timed {
	const script = `set -e; cp "$1" "$3" & copy=$!; sha256sum "$1" >"$3.sum" & sum=$!; veritysetup format "$2" "$3.tree" >/dev/null; wait $copy; wait $sum`
	out := filepath.Join(b.k.Dir, "least")
	return func(ctx context.Context, u *run.Usage) error {
		defer func() {
			for _, file := range []string{out, out + ".sum", out + ".tree"} {
				_ = os.Remove(file)
			}
		}()
		return run.Run(ctx, run.Cmd{Name: "sh", Args: []string{"-c", script, "sh", image, root, out}, Used: u})
	}
}

// rootOf copies the root file system out of an image.
func rootOf(ctx context.Context, image, dst string) error {
	r, err := verify.Image(ctx, image)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(r.Partitions, func(p verify.Partition) bool { return p.Name == "imgbuild-root" })
	if i < 0 {
		return fmt.Errorf("%s has no root", image)
	}
	src, err := os.Open(image) // #nosec G304 -- a scratch file
	if err != nil {
		return err
	}
	defer src.Close()          //nolint:errcheck // read only
	out, err := os.Create(dst) // #nosec G304 -- a scratch file
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.NewSectionReader(src, r.Partitions[i].Start, r.Partitions[i].Size))
	return errors.Join(err, out.Close())
}

// four builds four images of different roles and versions by four processes at once.
func (b *runner) four(ctx context.Context, u *run.Usage) error {
	b.line++
	now, before := filepath.Join(b.k.Dir, "out", "imgbuild.lock"), filepath.Join(b.k.Dir, patches[0], "imgbuild.lock")
	each := [][]string{{"master", "--lock", now}, {"worker", "--lock", now}, {"worker", "--lock", now, "--set", "firewall.allow=tcp/9100"},
		{"worker", "--lock", before, "--set", "kubernetes.version=" + patches[0]}}
	used := make([]run.Usage, len(each))
	group, ctx := errgroup.WithContext(ctx)
	start := repro.Now()
	for i, args := range each {
		group.Go(func() error {
			return b.imgbuild(append(args, "-o", filepath.Join(b.k.Dir, fmt.Sprint("four", i)), "--format", "raw", "--set", fmt.Sprintf("boot.sysctls.vm.max_map_count=%d", 262144+b.line))...)(ctx, &used[i])
		})
	}
	err := group.Wait()
	u.Wall = repro.Now().Sub(start)
	for _, one := range used {
		u.CPU += one.CPU
		u.Peak = max(u.Peak, one.Peak)
	}
	return err
}

// peers are other tools' rows, for the same node; none without root.
func (b *runner) peers(ctx context.Context) ([]row, error) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "the peers are not measured: their folder to change root into needs root")
		return nil, nil
	}
	p, err := makeMkosi(ctx, b.k.Dir, filepath.Join(b.k.Dir, "out", "worker.raw"))
	if err != nil {
		return nil, fmt.Errorf("mkosi: %w", err)
	}
	var first run.Usage
	if err := p.byHand(ctx, "cold", &first); err != nil { // fetches its packages
		return nil, fmt.Errorf("by hand: %w", err)
	}
	b.peer = p
	return []row{
		{"mkosi, same node: one line changed: raw, verity", b.n, p.changed},
		{"mkosi, same node: one line changed, 1 GB more", 1, func(ctx context.Context, u *run.Usage) error { return p.larger(ctx, 1000<<20, u) }},
		{"mkosi, same node: cold, packages in its cache", 1, p.cold},
		{"by hand (mmdebstrap, mkfs.ext4, ukify): one line changed, no verity", b.n, func(ctx context.Context, u *run.Usage) error { return p.byHand(ctx, "changed", u) }},
		{"by hand: cold, packages in its cache", 1, func(ctx context.Context, u *run.Usage) error { return p.byHand(ctx, "cold", u) }},
	}, nil
}

// median takes the run of median wall time, and the highest peak of all.
func median(name string, all []run.Usage) Time {
	slices.SortFunc(all, func(a, b run.Usage) int { return cmp.Compare(a.Wall, b.Wall) })
	m, peak := all[len(all)/2], int64(0)
	for _, u := range all {
		peak = max(peak, u.Peak)
	}
	return Time{Name: name, Runs: len(all), Wall: m.Wall.Seconds(), CPU: m.CPU.Seconds(), Peak: float64(peak) / 1e6}
}

// coldCache is a copy of the cache in which nothing that imgbuild made of packages and
// images is left; what was fetched or compiled stays.
func (b *runner) coldCache(ctx context.Context) (string, error) {
	warm, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache := filepath.Join(b.k.Dir, "cache")
	if err := run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"-a", filepath.Join(warm, "imgbuild"), cache}}); err != nil {
		return "", err
	}
	return cache, b.k.Forget(ctx, cache, kit.Made...)
}

// cold builds with a cold cache.
func (b *runner) cold(ctx context.Context, u *run.Usage) error {
	cache, err := b.coldCache(ctx)
	if err != nil {
		return err
	}
	defer os.RemoveAll(cache) //nolint:errcheck // a scratch folder
	out := filepath.Join(b.k.Dir, "cold")
	defer os.RemoveAll(out) //nolint:errcheck // a scratch folder
	return b.imgbuild("worker", "-o", out, "--cache", cache, "--lock", filepath.Join(b.k.Dir, "out", "imgbuild.lock"), "--format", "raw", "--offline")(ctx, u)
}
