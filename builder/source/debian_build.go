package source

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
)

// leaveOut are files that a node never needs: manuals, translations, and the
// hook that would make an initrd of its own. Copyright files stay.
var leaveOut = []string{
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/lintian/*",
	"path-exclude=/etc/kernel/postinst.d/initramfs-tools", "path-exclude=/usr/share/bash-completion/*",
}

// Build makes the base's root file system as a tar stream, from exactly the
// pinned packages. deb returns the file that holds a pin. The packages are given
// to mmdebstrap by a repository on loopback that holds nothing else, so that an
// unpinned package cannot enter.
func (b DebianBase) Build(ctx context.Context, pins []lock.Pin, deb func(lock.Pin) (string, error), out io.Writer) error {
	repo, err := newRepository(ctx, b.Suite, pins, deb)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: repo, ReadHeaderTimeout: time.Minute}
	go server.Serve(listener) //nolint:errcheck // ends by Close below
	defer server.Close()      //nolint:errcheck // nothing is lost
	var names []string
	for _, p := range pins {
		names = append(names, p.Name)
	}
	args := []string{"--variant=essential", "--format=tar", "--architectures=" + b.Arch, "--include=" + strings.Join(names, ","),
		`--aptopt=Acquire::Languages "none"`, `--aptopt=Acquire::http::Proxy::127.0.0.1 "DIRECT"`, "--customize-hook=rm -f \"$1/etc/apt/sources.list\" \"$1/etc/apt/apt.conf.d/99mmdebstrap\""}
	for _, opt := range leaveOut {
		args = append(args, "--dpkgopt="+opt)
	}
	args = append(args, b.Suite, "-", fmt.Sprintf("deb [trusted=yes] http://%s/ ./", listener.Addr()))
	env := []string{fmt.Sprintf("SOURCE_DATE_EPOCH=%d", repro.DefaultEpoch), "DEBIAN_FRONTEND=noninteractive", "INITRD=No",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin:" + os.Getenv("PATH")} // the distribution's python3 before any other of the user's
	if err := run.Run(ctx, run.Cmd{Name: "mmdebstrap", Args: args, Env: env, Stdout: out}); err != nil {
		return fmt.Errorf("building the base %s: %w", b.Name, err)
	}
	return nil
}

// repository serves a flat Debian repository of fixed files.
type repository struct {
	packages, release []byte
	files             map[string]string
}

func newRepository(ctx context.Context, suite string, pins []lock.Pin, deb func(lock.Pin) (string, error)) (*repository, error) {
	r := &repository{files: map[string]string{}}
	var index strings.Builder
	for _, p := range pins {
		file, err := deb(p)
		if err != nil {
			return nil, err
		}
		control, err := run.Output(ctx, run.Cmd{Name: "dpkg-deb", Args: []string{"--field", file}})
		if err != nil {
			return nil, fmt.Errorf("reading package %s: %w", p.Name, err)
		}
		if err := sameAsPinned(p, string(control)); err != nil {
			return nil, err
		}
		name := fmt.Sprintf("%s_%s.deb", p.Name, strings.TrimPrefix(p.Digest, "sha256:")[:16])
		r.files[name] = file
		fmt.Fprintf(&index, "%sFilename: ./%s\nSize: %d\nSHA256: %s\n\n",
			strings.TrimRight(string(control), "\n")+"\n", name, p.Size, strings.TrimPrefix(p.Digest, "sha256:"))
	}
	r.packages = []byte(index.String())
	r.release = fmt.Appendf(nil, "Origin: imgbuild\nLabel: imgbuild\nSuite: %s\nCodename: %s\nSHA256:\n %x %d Packages\n", suite, suite, sha256.Sum256(r.packages), len(r.packages))
	return r, nil
}

// sameAsPinned wants a package to say of itself what the lock says of it: the bill of
// materials is made from the lock.
func sameAsPinned(p lock.Pin, control string) error {
	want := map[string]string{"Package": p.Name, "Version": p.Version, "Architecture": p.Arch}
	for line := range strings.Lines(control) {
		key, value, _ := strings.Cut(line, ":")
		if w, ok := want[key]; ok && strings.TrimSpace(value) != w {
			return fault.New(fault.Lock, "package %s says %s: %s, and the lock pins %s; run `imgbuild lock` to pin anew", p.Name, key, strings.TrimSpace(value), w)
		}
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (r *repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := path.Base(req.URL.Path)
	switch file, ok := r.files[name]; {
	case name == "Packages":
		_, _ = w.Write(r.packages)
	case name == "Release":
		_, _ = w.Write(r.release)
	case ok:
		serveFile(w, req, file)
	default:
		http.NotFound(w, req)
	}
}

func serveFile(w http.ResponseWriter, req *http.Request, file string) {
	f, err := os.Open(file) // #nosec G304 -- a file of the content store, chosen by digest
	if err != nil {
		http.NotFound(w, req)
		return
	}
	defer f.Close() //nolint:errcheck // read only
	http.ServeContent(w, req, "", time.Time{}, f)
}
