package builder

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/store"
)

// checkOutputs reads the outputs back before they get their names, and measures
// them for the manifest: all at once, each with one processor.
func checkOutputs(ctx context.Context, o Options, m *Manifest, a *artefacts, scratch string) error {
	defer o.Report.Stage("verifying")()
	group, sub := errgroup.WithContext(ctx)
	for i := range m.Outputs {
		w := &m.Outputs[i]
		group.Go(func() error { return w.check(sub, o, m, a.disk, filepath.Join(scratch, w.File)) })
	}
	err := group.Wait()
	if why := a.wait(); why != nil { // then nothing can be sound
		return why
	}
	return err
}

// check is that of the output which lies at file. The disk itself is read while it is
// still being written.
func (w *Written) check(ctx context.Context, o Options, m *Manifest, disk *sparse.Poured, file string) error {
	format, err := output.Find(w.Format)
	if err != nil {
		return err
	}
	if format.Reads != output.AsMade {
		f, err := os.Open(file) // #nosec G304 -- our own output
		if err != nil {
			return err
		}
		disk = sparse.Pour(ctx, f, nil)
		defer disk.Close() //nolint:errcheck // read only
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.measure(disk) })
	group.Go(func() error {
		r, err := readBack(ctx, format.Reads, disk, file, !o.join.Inline.Empty())
		if err != nil {
			return fault.New(fault.Verify, "reading back: %w", err)
		}
		if r.UKI != "" && r.RootHash != m.RootHash { // of a disk; a payload has its own
			return fault.New(fault.Verify, "%s: root hash %q, the build made %q", filepath.Base(file), r.RootHash, m.RootHash)
		}
		return Complain(filepath.Base(file), r)
	})
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
func readBack(ctx context.Context, as output.Reader, disk *sparse.Poured, file string, token bool) (*verify.Report, error) {
	switch as {
	case output.AsMade:
		return verify.Raw(ctx, file, disk)
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
