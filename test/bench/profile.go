package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/internal/report"
)

// profile builds a worker in this process, once with everything in the cache and a line of
// the spec changed, once with the base laid out anew, and leaves where processor time went
// in two files for `go tool pprof`: dir/changed.pprof and dir/cold.pprof.
func (b *runner) profile(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- figures
		return err
	}
	o := builder.Options{Role: "worker", Out: filepath.Join(b.k.Dir, "profile"), ToolDir: b.k.Bin, Report: report.Discard{},
		Sets: []string{"output.formats=raw"}}
	if _, err := builder.Build(ctx, o); err != nil { // everything into the cache
		return err
	}
	o.Sets = append(o.Sets, "boot.sysctls.vm.max_map_count=262145")
	if err := profiled(ctx, o, filepath.Join(dir, "changed.pprof")); err != nil {
		return err
	}
	var err error
	if o.CacheDir, err = b.coldCache(ctx); err != nil {
		return err
	}
	o.Sets = o.Sets[:1]
	return profiled(ctx, o, filepath.Join(dir, "cold.pprof"))
}

func profiled(ctx context.Context, o builder.Options, file string) error {
	f, err := os.Create(file) // #nosec G304 -- the folder that the caller names
	if err != nil {
		return err
	}
	err = pprof.StartCPUProfile(f)
	if err == nil {
		_, err = builder.Build(ctx, o)
		pprof.StopCPUProfile()
	}
	return errors.Join(err, f.Close())
}
