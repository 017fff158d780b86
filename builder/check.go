package builder

import (
	"context"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/store"
)

// checkOutputs reads the outputs back before they get their names, and measures
// them for the manifest: all at once, each with one processor.
func checkOutputs(ctx context.Context, o Options, m *Manifest, scratch string) error {
	defer o.Report.Stage("verifying")()
	group, ctx := errgroup.WithContext(ctx)
	for i := range m.Outputs {
		w := &m.Outputs[i]
		file := filepath.Join(scratch, w.File)
		group.Go(func() error { return w.measure(file) })
		group.Go(func() error {
			r, err := readBack(ctx, w.Format, file, !o.join.Inline.Empty())
			if err != nil {
				return fault.New(fault.Verify, "reading back: %w", err)
			}
			if r.UKI != "" && r.RootHash != m.RootHash { // of a disk; a payload has its own
				return fault.New(fault.Verify, "%s: root hash %q, the build made %q", filepath.Base(file), r.RootHash, m.RootHash)
			}
			return Complain(filepath.Base(file), r)
		})
	}
	return group.Wait()
}

// blame is the error of outputs that are not sound, or what that comes of: blobs of the
// cache that the disk does not return as they were filed.
func blame(err error, cache *store.Store) error {
	if fault.KindOf(err) != fault.Verify {
		return err
	}
	if damaged := cache.Recheck(); damaged != nil {
		return fault.Wrap(fault.Fetch, damaged)
	}
	return err
}

// readBack reads an output with code that did not write it. A config may hold a token
// where that was asked for.
func readBack(ctx context.Context, format, file string, token bool) (*verify.Report, error) {
	f, err := output.Find(format)
	if err != nil {
		return nil, err
	}
	switch f.Reads {
	case output.AsDisk:
		return verify.Image(ctx, file)
	case output.AsExtension:
		return verify.Extension(ctx, file)
	case output.AsArchive:
		return verify.Archive(file)
	case output.AsNetboot:
		return verify.Netboot(ctx, file)
	}
	return verify.Config(file, token)
}

// Complain turns a report's findings into one error, or nil.
func Complain(name string, r *verify.Report) error {
	if len(r.Findings) == 0 {
		return nil
	}
	var lines []string
	for _, f := range r.Findings {
		lines = append(lines, report.Line(name+": "+f.String()))
	}
	return fault.New(fault.Verify, "%s", strings.Join(lines, "\n"))
}
