package cluster

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// elsewhere runs "$@" as another user with another umask on a host of another
// name, in a folder on a tmpfs, on one processor. It stands in name spaces of its
// own, so it needs no privilege, and nothing of it is left behind.
const elsewhere = `hostname elsewhere.example && mount -t tmpfs none "$SPACE" && cd "$SPACE" && umask 077 &&
exec taskset -c 0 unshare --user --map-user=4321 --map-group=4321 "$@"`

// buildElsewhere builds the worker again with everything changed that the image
// must not depend on: user, umask, folder, file system, host name, processors,
// time zone, locale and day. The image is the same.
func buildElsewhere(ctx context.Context, t *testing.T, k kit.Kit, more []string) {
	first, space := filepath.Join(k.Dir, "out"), t.TempDir()
	later := tomorrow(ctx, t)
	args := []string{"--uts", "--mount", "--map-root-user", "sh", "-c", elsewhere, "sh", "sh", "-c", `"$@" >&2 && sha256sum out/worker.*`, "sh",
		later, "worker", "--tools", k.Bin, "--lock", filepath.Join(first, "imgbuild.lock"), "--cache", kit.Cache(t), "--format", "raw,qcow2"}
	said, err := run.Output(ctx, run.Cmd{Name: "unshare", Args: append(args, more...), Stderr: os.Stderr,
		Env: []string{"SPACE=" + space, "TZ=Pacific/Kiritimati", "LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "HOME=" + space, "USER=somebody"}})
	must(t, err)
	_, err = k.Image(ctx, "worker", "raw,qcow2", more...)
	must(t, err)
	for _, format := range []string{"raw", "qcow2"} {
		if want := sha256sum(t, filepath.Join(first, "worker."+format)); !strings.Contains(string(said), want+"  out/worker."+format) {
			t.Errorf("worker.%s is %s here; elsewhere:\n%s", format, want, said)
		}
	}
}

// buildCold builds the worker from a cache in which nothing is left of what
// imgbuild made of packages and images: only what was fetched or compiled. (That
// compiling gives the same bytes is TestGoModuleBuildsTheSameBytesElsewhere's.)
func buildCold(ctx context.Context, t *testing.T, k kit.Kit, more []string) {
	first, out := filepath.Join(k.Dir, "out"), filepath.Join(t.TempDir(), "a", "longer", "path")
	cold := k.Cold(t)
	args := []string{"-c", `umask 027; exec taskset -c 0 "$@"`, "sh", filepath.Join(k.Bin, "imgbuild"), "worker", "-o", out,
		"--lock", filepath.Join(first, "imgbuild.lock"), "--cache", cold, "--format", "qcow2", "--offline"}
	must(t, run.Run(ctx, run.Cmd{Name: "sh", Args: append(args, more...), Stderr: os.Stderr, Env: []string{"TZ=America/St_Johns", "LC_ALL=C"}}))
	if a, b := sha256sum(t, filepath.Join(first, "worker.qcow2")), sha256sum(t, filepath.Join(out, "worker.qcow2")); a != b {
		t.Errorf("the same lock gave %s, and from a cold cache %s", a, b)
	}
}

// tomorrow is imgbuild whose every clock, the libraries' included, is 400 days
// ahead: built against a standard library in which time.Now says so.
func tomorrow(ctx context.Context, t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := run.Output(ctx, run.Cmd{Name: "go", Args: []string{"env", "GOROOT"}})
	must(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	must(t, err)
	const was = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	if strings.Count(string(text), was) != 1 {
		t.Fatalf("%s: time.Now reads otherwise than this test knows", source)
	}
	changed := filepath.Join(dir, "time.go")
	must(t, os.WriteFile(changed, []byte(strings.Replace(string(text), was, strings.Replace(was, "\n", "\n\tsec += 400 * 24 * 60 * 60\n", 1), 1)), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{source: changed}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	out := filepath.Join(dir, "imgbuild")
	must(t, run.Run(ctx, run.Cmd{Name: "go", Dir: "../..", Env: []string{"CGO_ENABLED=0"},
		Args: []string{"build", "-overlay", filepath.Join(dir, "overlay.json"), "-trimpath", "-buildvcs=false", "-o", out, "./cmd/imgbuild"}}))
	return out
}
