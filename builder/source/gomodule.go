package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/version"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/modfile"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// goModule builds static executables from upstream Go modules with the host's
// Go toolchain. Every module's bytes are vouched for by the Go checksum
// database; the user's ways around it (GONOSUMDB and the like) are not followed.
type goModule struct {
	opt Options

	mu      sync.Mutex
	tool    *toolchain
	modules map[string]moduleInfo // what was downloaded in this run, by module@version
}

var _ Source = (*goModule)(nil)

// toolchain is the Go that does the work and the environment that it works in.
type toolchain struct {
	version string // go1.26.8
	env     []string
}

// moduleInfo is what `go mod download -json` says of a module.
type moduleInfo struct{ Path, Version, Dir, GoMod, Sum, Error string }

// Resolve implements Source. A part's pin says the module, its sum, and the compilers that
// it was first resolved with; an image's pin those of its first part.
func (g *goModule) Resolve(ctx context.Context, req lock.Request) (lock.Pin, error) {
	name, ver := req.Name, strings.TrimPrefix(req.Version, "v")
	if req.Kind == lock.KindImage {
		r, tag, err := recipeOf(req.Name)
		if err != nil {
			return lock.Pin{}, err
		}
		name, ver = r.parts[0].name, moduleVersion(tag)
	}
	part, err := partOf(name)
	if err != nil {
		return lock.Pin{}, err
	}
	modVersion := ver
	if part.k8s {
		modVersion = g.opt.Kubernetes
	}
	tc, err := g.toolchain(ctx)
	if err != nil {
		return lock.Pin{}, err
	}
	info, err := g.download(ctx, part.module, modVersion)
	if err != nil {
		return lock.Pin{}, err
	}
	args := map[string]string{"go": tc.version}
	if part.hasC() {
		cc, err := g.gccVersion(ctx, g.opt.Arch)
		if err == nil {
			args["cc"] = cc
		} else if !run.IsMissingTool(err) { // a lock may be made where nothing is built
			return lock.Pin{}, err
		}
	}
	return lock.Pin{
		Request: req.Name, Kind: req.Kind, Name: req.Name, Version: ver, Arch: g.opt.Arch, Source: "gomodule",
		URL: info.Path + "@" + info.Version, Digest: info.Sum, Args: args,
	}, nil
}

// moduleVersion is the module's version in an image's tag: "3.7.0-0" and "v3.7.0" are both 3.7.0.
func moduleVersion(tag string) string {
	v, _, _ := strings.Cut(strings.TrimPrefix(tag, "v"), "-")
	return v
}

// Images implements Source: it builds the parts of each image and packs them.
func (g *goModule) Images(ctx context.Context, pins []lock.Pin, base *tree.Tree) ([]Image, error) {
	var wanted []lock.Pin
	for _, pin := range pins {
		r, _, err := recipeOf(pin.Name)
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", pin.Name, err)
		}
		for _, p := range r.parts {
			part := pin
			part.Kind, part.Name = lock.KindPart, p.name
			wanted = append(wanted, part)
		}
	}
	built, err := g.Parts(ctx, wanted)
	if err != nil {
		return nil, err
	}
	packer := newPacker(base, g.opt.Arch)
	out := make([]Image, len(pins))
	for i, pin := range pins {
		r, _, _ := recipeOf(pin.Name)
		img, err := packer.pack(r, built[:len(r.parts)])
		if err != nil {
			return nil, fmt.Errorf("packing image %s: %w", pin.Name, err)
		}
		built = built[len(r.parts):]
		out[i] = Image{Name: pin.Name, Image: img}
	}
	return out, nil
}

// toolchain finds Go and settles its environment, once.
func (g *goModule) toolchain(ctx context.Context) (*toolchain, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.tool != nil {
		return g.tool, nil
	}
	if err := run.Need(map[string]string{"go": "golang-go"}); err != nil {
		return nil, fmt.Errorf("building from Go modules: %w, or take another source of Kubernetes", err)
	}
	out, err := run.Output(ctx, run.Cmd{Name: "go", Args: []string{"env", "-json", "GOVERSION", "GOPROXY", "GOSUMDB", "GOMODCACHE", "GOCACHE"}, Env: []string{"GOTOOLCHAIN=local", "GOWORK=off"}, Dir: os.TempDir()})
	if err != nil {
		return nil, err
	}
	have := map[string]string{}
	if err := json.Unmarshal(out, &have); err != nil {
		return nil, fmt.Errorf("reading go env: %w", err)
	}
	if have["GOSUMDB"] == "off" {
		return nil, errors.New("the Go checksum database is switched off here (GOSUMDB=off), so nothing vouches for the modules: switch it on, or take another source of Kubernetes")
	}
	// GOENV=off: the user's settings count only where they say how to reach and keep modules.
	env := []string{"GOENV=off", "GOTOOLCHAIN=local", "GOWORK=off", "GOFLAGS=-mod=mod", "GOINSECURE=", "GONOSUMDB=", "GOPRIVATE=", "GONOPROXY=",
		"GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOOS=linux", "GOARCH=" + g.opt.Arch, "CGO_ENABLED=0", "GOTELEMETRY=off"}
	if g.opt.Offline {
		have["GOPROXY"] = "off"
	}
	for _, key := range []string{"GOPROXY", "GOSUMDB", "GOMODCACHE", "GOCACHE"} {
		env = append(env, key+"="+have[key])
	}
	g.tool = &toolchain{version: have["GOVERSION"], env: env}
	return g.tool, nil
}

// download brings a module into Go's module cache, checked by the checksum database.
func (g *goModule) download(ctx context.Context, module, ver string) (moduleInfo, error) {
	tc, err := g.toolchain(ctx)
	if err != nil {
		return moduleInfo{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	at := module + "@v" + strings.TrimPrefix(ver, "v")
	if info, ok := g.modules[at]; ok {
		return info, nil
	}
	dir, err := g.opt.Store.TempDir("gomod-")
	if err != nil {
		return moduleInfo{}, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // scratch
	out, runErr := run.Output(ctx, run.Cmd{Name: "go", Args: []string{"mod", "download", "-json", at}, Env: tc.env, Dir: dir})
	var info moduleInfo
	if err := json.Unmarshal(out, &info); err != nil {
		return moduleInfo{}, fmt.Errorf("downloading %s: %w", at, errors.Join(runErr, ctx.Err()))
	}
	if info.Error != "" || info.Sum == "" {
		return moduleInfo{}, fmt.Errorf("downloading %s: %s", at, info.Error)
	}
	if g.modules == nil {
		g.modules = map[string]moduleInfo{}
	}
	g.modules[at] = info
	return info, nil
}

// pinned downloads a pin's module and holds it against the pin.
func (g *goModule) pinned(ctx context.Context, pin lock.Pin) (moduleInfo, error) {
	module, ver, ok := strings.Cut(pin.URL, "@")
	if !ok {
		return moduleInfo{}, fmt.Errorf("%s: %q is no module@version: make the lock anew", pin.Name, pin.URL)
	}
	info, err := g.download(ctx, module, ver)
	if err != nil {
		return moduleInfo{}, err
	}
	if info.Sum != pin.Digest {
		return moduleInfo{}, fmt.Errorf("%s: the lock wants %s, the checksum database vouches for %s", pin.URL, pin.Digest, info.Sum)
	}
	return info, nil
}

// workspace writes a module whose only requirement is the pinned one, with the
// replacements that its own go.mod would make were it the main module:
// Kubernetes' staging folders become the published modules of the same release.
func workspace(dir string, info moduleInfo, goVersion string) error {
	text, err := os.ReadFile(info.GoMod)
	if err != nil {
		return err
	}
	theirs, err := modfile.Parse(info.GoMod, text, nil)
	if err != nil {
		return fmt.Errorf("reading the go.mod of %s: %w", info.Path, err)
	}
	if theirs.Go != nil && version.Compare("go"+theirs.Go.Version, goVersion) > 0 {
		return fmt.Errorf("%s %s needs Go %s or newer, and %s is here: install a newer Go, or take another source of Kubernetes",
			info.Path, info.Version, theirs.Go.Version, goVersion)
	}
	ours := &modfile.File{}
	edits := []error{ours.AddModuleStmt("imgbuild.invalid/build"), ours.AddRequire(info.Path, info.Version)}
	if theirs.Go != nil {
		edits = append(edits, ours.AddGoStmt(theirs.Go.Version))
	}
	staging := strings.Replace(info.Version, "v1.", "v0.", 1)
	for _, r := range theirs.Replace {
		switch {
		case r.New.Version != "":
			edits = append(edits, ours.AddReplace(r.Old.Path, r.Old.Version, r.New.Path, r.New.Version))
		case strings.HasPrefix(r.New.Path, "./staging/"):
			edits = append(edits, ours.AddReplace(r.Old.Path, "", r.Old.Path, staging))
		}
	}
	if err := errors.Join(edits...); err != nil {
		return fmt.Errorf("writing a go.mod for %s: %w", info.Path, err)
	}
	out, err := ours.Format()
	if err != nil {
		return err
	}
	sum := fmt.Sprintf("%s %s %s\n", info.Path, info.Version, info.Sum)
	return errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), out, 0o600), os.WriteFile(filepath.Join(dir, "go.sum"), []byte(sum), 0o600))
}

func sortedVars(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
