// Command bench is `make bench`: it times what people wait for, beside cp of the
// same bytes and beside mkosi, and writes the figures as a table and as JSON.
// Machines differ and are shared: what counts is the ratio within one run.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

func main() {
	bin := flag.String("bin", "bin", "folder with imgbuild and its node programs")
	out := flag.String("out", "docs/bench", "where the figures go: this name with .md and .json")
	n := flag.Int("n", 5, "how often each is timed; the median counts")
	where := flag.String("profile", "", "folder for profiles of two builds, instead of figures (empty: none)")
	boot := flag.Bool("boot", true, "boot a cluster, too (else the last run's figures stay)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, *bin, *out, *where, *n, *boot)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Figures is what a run of the bench found.
type Figures struct {
	Day     string  `json:"day"`
	Machine string  `json:"machine"`
	Times   []Time  `json:"times"`
	Sizes   []Size  `json:"sizes"`
	Login   []Login `json:"login,omitempty"`
	Boot    []Stage `json:"boot,omitempty"`
	BootDay string  `json:"bootDay,omitempty"`
}

// Time is one thing timed: medians in seconds, CPU time of all its processes,
// and the largest of them in MB (10^6 bytes). Ratio is to cp's seconds.
type Time struct {
	Name  string  `json:"name"`
	Runs  int     `json:"runs"`
	Wall  float64 `json:"wallSeconds"`
	CPU   float64 `json:"cpuSeconds"`
	Peak  float64 `json:"peakMB"`
	Ratio float64 `json:"ratioToCp"`
}

// Size is one file: its length, and what it takes on the disk, in bytes.
type Size struct {
	File   string `json:"file"`
	Length int64  `json:"length"`
	Used   int64  `json:"used"`
}

// Stage is one step of a cluster's first boot, in seconds since power-on.
type Stage struct {
	Name  string  `json:"name"`
	After float64 `json:"secondsAfterPowerOn"`
}

func bench(ctx context.Context, bin, out, where string, n int, boot bool) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "imgbuild-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch folder
	b := &runner{k: kit.Kit{Bin: bin, Dir: dir, Said: os.Stderr}, n: n}
	if where != "" {
		return b.profile(ctx, where)
	}
	f := &Figures{Day: repro.Now().UTC().Format("2006-01-02"), Machine: machine()}
	for _, role := range []string{"master", "worker"} { // everything into the cache
		if _, err := b.k.Image(ctx, role, "raw"); err != nil {
			return err
		}
	}
	if f.Times, err = b.times(ctx); err != nil {
		return err
	}
	if f.Sizes, err = b.sizes(ctx); err != nil {
		return err
	}
	if boot {
		f.BootDay = f.Day
		if f.Login, err = b.logins(ctx); err != nil {
			return err
		}
		if f.Boot, err = b.boot(ctx); err != nil {
			return err
		}
	} else if old, err := os.ReadFile(out + ".json"); err == nil { // what an earlier run found stands, with its day
		var last Figures
		if err := json.Unmarshal(old, &last); err != nil {
			return fmt.Errorf("reading the last figures: %w", err)
		}
		f.Login, f.Boot, f.BootDay = last.Login, last.Boot, last.BootDay
	}
	text, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	table := f.table()
	fmt.Fprint(os.Stdout, table)
	if err := os.WriteFile(out+".json", append(text, '\n'), 0o644); err != nil { // #nosec G306 -- a document
		return err
	}
	return os.WriteFile(out+".md", []byte(table), 0o644) // #nosec G306 -- a document
}

func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	return fmt.Sprintf("%s, %d processors", model, cores())
}

// table is the figures as Markdown.
func (f *Figures) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# How fast\n\n`make bench` wrote this on %s: %s, no KVM. Machines differ and are shared: what counts is the ratio to `cp`\nof the same bytes in the same run. Wall seconds are medians, of `cp` the fastest run.\n\n", f.Day, f.Machine)
	b.WriteString("| what | runs | wall s | CPU s | x cp | peak MB |\n|---|---|---|---|---|---|\n")
	for _, t := range f.Times {
		fmt.Fprintf(&b, "| %s | %d | %.2f | %.2f | %.1f | %.0f |\n", t.Name, t.Runs, t.Wall, t.CPU, t.Ratio, t.Peak)
	}
	cp, least, one := f.Times[0].Wall, f.Times[1].Wall, f.Times[3].Wall
	fmt.Fprintf(&b, "\nThe goal for one changed line is twice `cp` and half a second: %.2f s here, and it took %.2f s. Two readings of the image are in it that\n`cp` has not: its digest, and `verify`, which hashes every block anew; and fsync(2). Others' tools need %.2f s for as much, all at once.\n", 2*cp+.5, one, least)
	b.WriteString("\n| file | MB | MB on disk |\n|---|---|---|\n")
	for _, s := range f.Sizes {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", s.File, s.Length/1e6, s.Used/1e6)
	}
	if len(f.Login) > 0 {
		fmt.Fprintf(&b, "\n| no network, emulated processor, %s | s from the kernel to the root's systemd | s from power-on to the login prompts | x the worker |\n|---|---|---|---|\n", f.BootDay)
		for _, l := range f.Login {
			fmt.Fprintf(&b, "| %s | %.1f | %.0f | %.1f |\n", l.Name, l.Initrd, l.After, l.After/f.Login[0].After)
		}
	}
	if len(f.Boot) > 0 {
		fmt.Fprintf(&b, "\n| first boot of master and worker together, emulated processor, %s | s after power-on |\n|---|---|\n", f.BootDay)
		for _, s := range f.Boot {
			fmt.Fprintf(&b, "| %s | %.0f |\n", s.Name, s.After)
		}
	}
	return b.String()
}

// boot brings a cluster up and says when it got how far.
func (b *runner) boot(ctx context.Context) ([]Stage, error) {
	if err := b.k.Identity(ctx); err != nil {
		return nil, err
	}
	start := repro.Now()
	c, err := b.k.Up(ctx, map[string]string{"master": filepath.Join(b.k.Dir, "out", "master.raw"), "worker": filepath.Join(b.k.Dir, "out", "worker.raw")})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []Stage
	err = c.Watch(ctx, func(stage string) { out = append(out, Stage{stage, repro.Now().Sub(start).Seconds()}) })
	return out, err
}

func (b *runner) sizes(ctx context.Context) ([]Size, error) {
	var out []Size
	for _, role := range []string{"master", "worker"} {
		for _, more := range [][]string{{"--format", "raw,qcow2"}, {"--format", "qcow2", "--compress"}} {
			dir := filepath.Join(b.k.Dir, "sizes")
			if _, err := b.k.Imgbuild(ctx, append([]string{role, "-o", dir, "--lock", filepath.Join(b.k.Dir, "out", "imgbuild.lock")}, more...)...); err != nil {
				return nil, err
			}
			files, err := filepath.Glob(filepath.Join(dir, role+".*"))
			if err != nil {
				return nil, err
			}
			for _, file := range files {
				var s syscall.Stat_t
				if err := syscall.Stat(file, &s); err != nil {
					return nil, err
				}
				if name := filepath.Base(file); strings.HasSuffix(name, ".raw") || strings.HasSuffix(name, ".qcow2") {
					if len(more) > 2 {
						name += ", compressed"
					}
					out = append(out, Size{name, s.Size, s.Blocks * 512})
				}
			}
			if err := os.RemoveAll(dir); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// imgbuild is one timed run of the command line.
func (b *runner) imgbuild(args ...string) timed {
	return func(ctx context.Context, u *run.Usage) error {
		return run.Run(ctx, run.Cmd{Name: filepath.Join(b.k.Bin, "imgbuild"), Args: args, Used: u})
	}
}
