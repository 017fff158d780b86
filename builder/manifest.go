package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/sparse"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// Manifest says what a build wrote and from what. It lies beside the outputs as
// NAME.manifest.json.
type Manifest struct {
	ID         string            `json:"id"` // the plan's
	Role       string            `json:"role"`
	Arch       string            `json:"arch"`
	Kubernetes string            `json:"kubernetes"`
	RootHash   string            `json:"rootHash"` // of dm-verity, hex; empty without a disk
	UKI        string            `json:"uki"`      // path in the ESP
	Outputs    []Written         `json:"outputs"`
	Documents  []Written         `json:"documents"` // that speak of the outputs: bills of materials, provenance
	Spec       json.RawMessage   `json:"spec"`      // canonical, profile included
	Images     []string          `json:"images"`    // on board
	Inputs     []lock.Pin        `json:"inputs"`
	Tools      map[string]string `json:"tools"`
	Join       string            `json:"join,omitempty"` // the flag by which configs for hosts got more than the spec says
}

// manifestEnding is what a manifest's file is called beyond the outputs' name.
const manifestEnding = ".manifest.json"

// envelopeEnding is what a signed statement's file is called beyond the outputs' name.
const envelopeEnding = ".intoto.jsonl"

// inTheWay says so, before anything is built, where an output could not get its name, or
// another node has it.
func inTheWay(o Options, p *plan.Plan) error {
	if old := o.earlier(p); old != nil && (old.Role != p.Role || old.Arch != p.Arch) {
		return fault.New(fault.Usage, "%s is of a %s for %s, and this is a %s for %s: choose another output.name, or another folder with -o", o.manifestPath(p), old.Role, old.Arch, p.Role, p.Arch)
	}
	names := []string{p.Name() + manifestEnding}
	for _, out := range p.Outputs {
		names = append(names, out.File)
	}
	return onlyFiles(o.Out, names)
}

// earlier is the manifest of the last build by this name; nil: there is none that can be read.
func (o Options) earlier(p *plan.Plan) *Manifest {
	var m Manifest
	text, err := os.ReadFile(o.manifestPath(p))
	if err != nil || json.Unmarshal(text, &m) != nil {
		return nil
	}
	return &m
}

// onlyFiles says so where a folder has, under one of the names, what is no regular file.
func onlyFiles(dir string, names []string) error {
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err == nil && !info.Mode().IsRegular() {
			return fault.New(fault.Usage, "%s is no regular file, and an output is to be called so: remove it, or choose another folder", filepath.Join(dir, name))
		}
	}
	return nil
}

// files are the outputs and the documents.
func (m *Manifest) files() []Written { return append(slices.Clone(m.Outputs), m.Documents...) }

// text is the manifest as it is written.
func (m *Manifest) text() []byte {
	text, _ := json.MarshalIndent(m, "", " ") // plain data cannot fail
	return append(text, '\n')
}

// document speaks of the outputs, in a standard format.
type document struct {
	format, file string
	text         []byte
}

// add writes documents into the scratch folder and lists them.
func (m *Manifest) add(scratch string, documents ...document) error {
	for _, d := range documents {
		m.Documents = append(m.Documents, measured(d.format, d.file, d.text))
		if err := writeFile(filepath.Join(scratch, d.file), d.text); err != nil {
			return err
		}
	}
	return nil
}

func measured(format, file string, text []byte) Written {
	return Written{Format: format, File: file, Size: int64(len(text)), SHA256: fmt.Sprintf("%x", sha256.Sum256(text))}
}

// Written is one file. Size and SHA256 are of the whole file.
type Written struct {
	Format string `json:"format"`
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// together is how many outputs are written at once: two, for each packs with all processors
// where there is much to pack, and what it does besides, it does with one.
const together = 2

// writeOutputs makes every output in the scratch folder, those that consume the
// disk last, and others once all of it is there. What they measure is not known yet.
func writeOutputs(ctx context.Context, o Options, p *plan.Plan, from *made, there func() error, scratch string) (*Manifest, error) {
	m := &Manifest{ID: p.ID, Role: p.Role, Arch: p.Arch, Kubernetes: p.Spec.Kubernetes.Version, RootHash: from.disk.RootHash, UKI: from.disk.UKI,
		Spec: p.Spec.Canonical(), Images: p.Images, Inputs: p.Inputs, Tools: p.Tools, Join: joinFlag(o.join)}
	for _, last := range []bool{false, true} {
		group, sub := errgroup.WithContext(ctx)
		group.SetLimit(together)
		for _, out := range p.Outputs {
			format, err := output.Find(out.Format)
			if err != nil {
				return nil, errors.Join(err, group.Wait())
			}
			if format.Last != last {
				continue
			}
			m.Outputs = append(m.Outputs, Written{Format: out.Format, File: out.File})
			group.Go(func() error {
				if !last {
					if err := there(); err != nil {
						return err
					}
				}
				return writeOutput(sub, o, format, &from.Made, filepath.Join(scratch, out.File), out.Compress)
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func writeOutput(ctx context.Context, o Options, format output.Format, from *output.Made, file string, compress bool) error {
	defer o.Report.Stage("writing " + filepath.Base(file))()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := format.Write(ctx, from, file, compress); err != nil {
		return err
	}
	if info, err := os.Stat(file); err == nil && format.Limit > 0 && info.Size() > format.Limit {
		o.Report.Note("%s has %d bytes, and some clouds take %d: build with --compress (cloud-init), or have a short config point to it by a URL with its digest (ignition.config.replace, #include)", filepath.Base(file), info.Size(), format.Limit)
	}
	return nil
}

// measure fills in size and digest of the output, and sees to it that the file is on the
// disk before it gets its name.
func (w *Written) measure(file *sparse.Poured) error {
	var group errgroup.Group
	group.Go(file.Sync)
	group.Go(func() error {
		sum, size, err := file.SHA256()
		w.Size, w.SHA256 = size, hex.EncodeToString(sum)
		return err
	})
	return group.Wait()
}

// publish gives every file its final name; an old manifest goes first and the new
// one comes last: where a manifest is, all it names is there. A signature of an
// earlier build goes with what it signed.
func publish(o Options, p *plan.Plan, m *Manifest, scratch string) error {
	if old := o.earlier(p); old != nil && old.ID != m.ID {
		for _, w := range old.Outputs {
			left := filepath.Join(o.Out, w.File)
			if _, err := os.Lstat(left); err == nil && !slices.ContainsFunc(m.Outputs, func(n Written) bool { return n.File == w.File }) {
				o.Report.Note("%s is of an earlier build, and the manifest names it no more", left)
			}
		}
	}
	if err := os.Remove(o.manifestPath(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := []string{p.Name() + manifestEnding + signatureEnding, p.Name() + envelopeEnding, p.Name() + envelopeEnding + signatureEnding}
	for _, w := range m.files() {
		names = append(names, w.File, w.File+signatureEnding)
	}
	if err := replace(scratch, o.Out, names, func(name string) fs.FileMode { return o.modeOf(m, name) }); err != nil {
		return err
	}
	return writeFile(o.manifestPath(p), m.text())
}

// replace moves files of those names from one folder to another. A signature or signed
// statement that is not there goes where it was.
func replace(from, to string, names []string, mode func(name string) fs.FileMode) error {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		file, final := filepath.Join(from, name), filepath.Join(to, name)
		err := os.Chmod(file, mode(name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && (strings.HasSuffix(name, signatureEnding) || strings.HasSuffix(name, envelopeEnding)):
			err = os.Remove(final)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		case err == nil:
			err = os.Rename(file, final)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// modeOf is the mode of an output: an image holds no secret, a config may hold a token,
// or the URL of one.
func (o Options) modeOf(m *Manifest, name string) fs.FileMode {
	if joinFlag(o.join) != "" && slices.ContainsFunc(m.Outputs, func(w Written) bool { return w.File == name && isConfig(w.Format) }) {
		return 0o600
	}
	return 0o644
}

// writeFile makes a file that appears whole or not at all.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- the user's output folder
		return err
	}
	return whole.WriteFile(path, data, 0o644)
}
