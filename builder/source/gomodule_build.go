package source

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/arch"
	"github.com/imgbuild/imgbuild/internal/run"
)

// job is one executable to be built.
type job struct {
	pin  lock.Pin
	part goPart
	key  string // names everything that its bytes follow from
}

// Parts implements Source. What the compilers that a pin names have made comes from the
// store, and no program is started for it. Parts of one module are built in one go, because
// they share most of their packages.
func (g *goModule) Parts(ctx context.Context, pins []lock.Pin) ([]Executable, error) {
	jobs := make([]job, len(pins))
	for i, pin := range pins {
		part, err := partOf(pin.Name)
		if err != nil {
			return nil, fmt.Errorf("building %s: %w", pin.Name, err)
		}
		jobs[i] = newJob(pin, part, pin.Args["go"], pin.Args["cc"])
	}
	modules, order := map[string][]job{}, []string{}
	if len(g.missing(jobs)) > 0 {
		for i, j := range jobs {
			if _, ok := g.built(j); ok {
				continue
			}
			here, err := g.here(ctx, j)
			if err != nil {
				return nil, fmt.Errorf("building %s: %w", j.pin.Name, err)
			}
			jobs[i] = here
			if _, ok := modules[j.pin.URL]; !ok {
				order = append(order, j.pin.URL)
			}
			modules[j.pin.URL] = append(modules[j.pin.URL], here)
		}
	}
	for _, at := range order {
		if err := g.module(ctx, at, modules[at]); err != nil {
			return nil, fmt.Errorf("building %s: %w", at, err)
		}
	}
	out := make([]Executable, len(pins))
	for i, j := range jobs {
		path, ok := g.built(j)
		if !ok {
			return nil, fmt.Errorf("building %s: the result is gone from the cache: run again", j.pin.Name)
		}
		var err error
		if out[i], err = executable(j.pin.Name, path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// newJob is a pin's part as it is built by a Go and, where it has C in it, a C compiler.
func newJob(pin lock.Pin, part goPart, compiler, cc string) job {
	if part.hasC() {
		compiler += ", " + cc
	}
	recipe := []any{"gomodule/1", pin.URL, pin.Digest, pin.Version, pin.Arch, compiler, part.pkg, part.out, part.c, part.cgo, linkFlags(part, pin.Version)}
	key, _ := json.Marshal(recipe) // plain data cannot fail
	return job{pin: pin, part: part, key: string(key)}
}

// here is a job as this host's compilers do it.
func (g *goModule) here(ctx context.Context, j job) (job, error) {
	tc, err := g.toolchain(ctx)
	if err != nil {
		return j, err
	}
	cc := ""
	if j.part.hasC() {
		if cc, err = g.gccVersion(ctx, j.pin.Arch); err != nil {
			return j, err
		}
	}
	for name, have := range map[string]string{"go": tc.version, "cc": cc} {
		if want := j.pin.Args[name]; want != "" && want != have {
			g.opt.Report.Note("%s was locked with %s and is built with %s: its bytes will differ", j.pin.Name, want, have)
		}
	}
	return newJob(j.pin, j.part, tc.version, cc), nil
}

func (g *goModule) built(j job) (string, bool) {
	digest, ok := g.opt.Store.Lookup(j.key)
	if !ok {
		return "", false
	}
	path, err := g.opt.Store.Get(digest)
	return path, err == nil
}

func (g *goModule) missing(jobs []job) (out []job) {
	var group errgroup.Group
	for _, j := range jobs {
		group.Go(func() error { g.built(j); return nil }) // the store remembers what it has checked
	}
	_ = group.Wait()
	seen := map[string]bool{}
	for _, j := range jobs {
		if _, ok := g.built(j); !ok && !seen[j.key] {
			seen[j.key] = true
			out = append(out, j)
		}
	}
	return out
}

// module builds what the store lacks of one module's executables.
func (g *goModule) module(ctx context.Context, at string, jobs []job) error {
	if len(g.missing(jobs)) == 0 {
		return nil
	}
	unlock, err := g.opt.Store.Lock(ctx, "gomodule "+at)
	if err != nil {
		return err
	}
	defer unlock()
	todo := g.missing(jobs)
	if len(todo) == 0 {
		return nil
	}
	var names []string
	for _, j := range todo {
		names = append(names, j.pin.Name)
	}
	defer g.opt.Report.Stage(fmt.Sprintf("building %s from %s", strings.Join(names, ", "), at))()
	tc, err := g.toolchain(ctx)
	if err != nil {
		return err
	}
	info, err := g.pinned(ctx, todo[0].pin)
	if err != nil {
		return err
	}
	dir, err := g.opt.Store.TempDir("gobuild-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	if err := g.compile(ctx, dir, info, todo, tc); err != nil {
		return err
	}
	for _, j := range todo {
		digest, _, err := g.opt.Store.PutFile(ctx, filepath.Join(dir, j.part.out))
		if err != nil {
			return err
		}
		if err := g.opt.Store.Record(j.key, digest); err != nil {
			return err
		}
	}
	return nil
}

// compile leaves the executables in dir under their part's out name.
func (g *goModule) compile(ctx context.Context, dir string, info moduleInfo, todo []job, tc *toolchain) error {
	var pkgs []string
	var flags string
	for _, j := range todo {
		if j.part.c != "" {
			if err := g.compileC(ctx, dir, info, j); err != nil {
				return err
			}
			continue
		}
		pkgs, flags = append(pkgs, j.part.path()), linkFlags(j.part, j.pin.Version) // the same for all parts of a module
	}
	if len(pkgs) == 0 {
		return nil
	}
	g.opt.Report.Progress("downloading the modules of "+info.Path, 0, 0, "packages")
	src := filepath.Join(dir, "src")
	if err := os.Mkdir(src, 0o700); err != nil {
		return err
	}
	if err := workspace(src, info, tc.version); err != nil {
		return err
	}
	env, args := tc.env, []string{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", dir + "/"}
	if todo[0].part.cgo { // modules are all cgo or none
		cc, _, err := gcc(todo[0].pin.Arch)
		if err != nil {
			return err
		}
		env = append(slices.Clone(env), "CGO_ENABLED=1", "CC="+cc, "CGO_CFLAGS=-O2", "CGO_CPPFLAGS=", "CGO_LDFLAGS=")
		args = append(args, "-tags", "netgo,osusergo") // glibc's resolver cannot be linked statically
	}
	total := g.stale(ctx, src, env, pkgs)
	count := &lineCounter{report: func(n int64) {
		if total > 0 {
			n = min(n, total)
		}
		g.opt.Report.Progress("compiling "+info.Path, n, total, "packages")
	}}
	return run.Run(ctx, run.Cmd{Name: "go", Args: append(args, pkgs...), Env: env, Dir: src, Stderr: count})
}

// stale counts the packages that have to be compiled, for the progress; 0 when
// that cannot be told. Any error is left to go build to tell.
func (g *goModule) stale(ctx context.Context, src string, env, pkgs []string) int64 {
	args := append([]string{"list", "-trimpath", "-buildvcs=false", "-deps", "-f", "{{if .Stale}}x{{end}}"}, pkgs...)
	out, err := run.Output(ctx, run.Cmd{Name: "go", Args: args, Env: env, Dir: src})
	if err != nil {
		return 0
	}
	return int64(bytes.Count(out, []byte("x")))
}

// compileC does what upstream's build/pause/Makefile does.
func (g *goModule) compileC(ctx context.Context, dir string, info moduleInfo, j job) error {
	name, _, err := gcc(j.pin.Arch)
	if err != nil {
		return err
	}
	src := filepath.Join(info.Dir, filepath.FromSlash(j.part.c))
	args := []string{"-Os", "-Wall", "-static", "-s", "-ffile-prefix-map=" + filepath.Dir(src) + "=.", "-DVERSION=v" + j.pin.Version,
		"-o", filepath.Join(dir, j.part.out), src}
	return run.Run(ctx, run.Cmd{Name: name, Args: args, Dir: dir})
}

func (g *goModule) gccVersion(ctx context.Context, arch string) (string, error) {
	name, pkg, err := gcc(arch)
	if err != nil {
		return "", err
	}
	if err := run.Need(map[string]string{name: pkg}); err != nil {
		return "", err
	}
	out, err := run.Output(ctx, run.Cmd{Name: name, Args: []string{"--version"}})
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), err
}

// gcc is the C compiler for an architecture and its Debian package.
func gcc(processor string) (name, pkg string, err error) {
	if processor == runtime.GOARCH {
		return "gcc", "gcc", nil
	}
	names, err := arch.Of(processor)
	return names.Triplet + "-gcc", "gcc-" + strings.ReplaceAll(names.Triplet, "_", "-"), err
}

func linkFlags(p goPart, version string) string {
	flags := []string{"-s", "-w"}
	if p.cgo {
		flags = append(flags, "-linkmode external", "-extldflags=-static")
	}
	if p.ldflags == nil {
		return strings.Join(flags, " ")
	}
	vars := p.ldflags(version)
	for _, name := range sortedVars(vars) {
		flags = append(flags, "-X "+name+"="+vars[name])
	}
	return strings.Join(flags, " ")
}

// lineCounter counts the lines of what go build -v says: one for each package.
type lineCounter struct {
	n      int64
	report func(n int64)
}

func (l *lineCounter) Write(p []byte) (int, error) {
	if k := bytes.Count(p, []byte("\n")); k > 0 {
		l.n += int64(k)
		l.report(l.n)
	}
	return len(p), nil
}
