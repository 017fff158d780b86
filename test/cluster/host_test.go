package cluster

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder/convert"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/test/kit"
)

// buildForHosts writes every format of a host, and asks systemd what it thinks of the
// payloads. The one with the programs is the same for both roles.
func buildForHosts(ctx context.Context, t *testing.T, k kit.Kit, lock string, more []string) {
	sums := map[string]string{}
	for role, formats := range map[string]string{"master": "sysext", "worker": "ignition,butane,cloud-init,nocloud,nocloud-fat,sysext,sysext-tar,sysext-images", "sealed": "ignition,sysext"} {
		out := filepath.Join(t.TempDir(), role)
		of, sealed := role, role == "sealed"
		if sealed {
			of = "worker"
		}
		_, err := k.Imgbuild(ctx, append([]string{of, "-o", out, "--lock", lock, "--format", formats, "--base", "debian",
			"--set", "host.payload=https://files.example/nodes", "--set", "host.images=" + strconv.FormatBool(!sealed), "--set", "host.verity=" + strconv.FormatBool(sealed)}, more...)...)
		must(t, err)
		files, err := filepath.Glob(filepath.Join(out, "kubernetes-*.raw"))
		must(t, err)
		if want := strings.Count(formats, "sysext") - strings.Count(formats, "sysext-tar"); len(files) != want {
			t.Fatalf("%s: %q, want %d payloads", role, files, want)
		}
		for _, file := range readable(t, out) {
			args := []string{"verify", file}
			if strings.Contains(file, "kubernetes-1") || strings.HasSuffix(file, ".iso") { // whose manifest is not called as they are
				args = append(args, "--rebuild")
			}
			_, err := k.Imgbuild(ctx, args...)
			must(t, err)
		}
		for _, file := range files {
			if sealed {
				sealedPayload(ctx, t, file)
				continue
			}
			if !strings.Contains(file, "images") {
				sums[role] = sha256sum(t, file)
			}
			if os.Getuid() != 0 {
				t.Log("systemd-dissect is not asked: it attaches a loop device, as root")
				continue
			}
			said, err := run.Output(ctx, run.Cmd{Name: "systemd-dissect", Args: []string{file}})
			if err != nil || !strings.Contains(string(said), "✓ extension for system") {
				t.Errorf("%s: %v\n%s", filepath.Base(file), err, said)
			}
		}
	}
	out := t.TempDir()
	for _, host := range []string{"debian", "flatcar"} { // in one folder, one after the other
		for _, url := range []string{"https://a.example", "https://b.example"} {
			_, err := k.Imgbuild(ctx, append([]string{"worker", "-o", out, "--lock", lock, "--format", "butane", "--base", host, "--set", "host.payload=" + url}, more...)...)
			must(t, err)
			text, err := os.ReadFile(filepath.Join(out, "worker.bu"))
			must(t, err)
			if !strings.Contains(string(text), url) || strings.Contains(string(text), "variant: flatcar") != (host == "flatcar") {
				t.Errorf("for %s and %s it leaves\n%.200s", host, url, text)
			}
		}
	}
	if sums["master"] != sums["worker"] {
		t.Errorf("the payload differs by role: %v", sums)
	}
	runPages(ctx, t, k, lock, more)
	inlineJoin(ctx, t, k, lock, more)
}

// readable are the outputs in a folder that verify reads, and that must be good.
func readable(t *testing.T, out string) (files []string) {
	t.Helper()
	for _, ending := range []string{"raw", "tar", "ign", "bu", "cloud-config", "iso"} {
		found, err := filepath.Glob(filepath.Join(out, "*."+ending))
		must(t, err)
		files = append(files, found...)
	}
	return files
}

// sealedPayload asks systemd for the payload with its hash tree, and verify for one
// with another bit in it.
func sealedPayload(ctx context.Context, t *testing.T, file string) {
	t.Helper()
	r, err := verify.Extension(ctx, file)
	must(t, err)
	must(t, os.WriteFile(strings.TrimSuffix(file, ".raw")+".roothash", []byte(r.RootHash+"\n"), 0o644)) // as the config for a host does
	if os.Getuid() == 0 {
		said, err := run.Output(ctx, run.Cmd{Name: "systemd-dissect", Args: []string{"--json=short", file}})
		if err != nil || !strings.Contains(string(said), `"verity":"yes"`) {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, said)
		}
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("another"), 5<<20)
	must(t, errors.Join(err, f.Close()))
	if r, err = verify.Extension(ctx, file); err != nil || len(r.Findings) != 1 || r.Findings[0].Check != "verity" {
		t.Errorf("with another bit: %v, %v", r, err)
	}
}

// runPages runs what the pages on hosts show, in a folder with a config that somebody has.
func runPages(ctx context.Context, t *testing.T, k kit.Kit, lock string, more []string) {
	dir := t.TempDir()
	site, err := os.ReadFile("testdata/site.bu")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "site.bu"), site, 0o644))
	for _, page := range []string{"ignition.md", "cloud-init.md"} {
		lines, err := kit.Commands(filepath.Join("../../docs", page))
		must(t, err)
		for _, args := range lines {
			switch {
			case slices.Contains(args, "bootstrap=cluster-api"):
				continue // test/capi builds those, and boots them
			case args[0] != "convert":
				args = append(append(args, "--lock", lock, "-o", t.TempDir()), more...)
			}
			if err := run.Run(ctx, run.Cmd{Name: filepath.Join(k.Bin, "imgbuild"), Args: args, Dir: dir, Stderr: k.Said}); err != nil {
				t.Errorf("%s: imgbuild %s: %v", page, strings.Join(args, " "), err)
			}
		}
	}
}

// inlineJoin puts a token into the configs for hosts, because it is asked for, and
// looks for it everywhere else. What signs for the cluster is refused.
func inlineJoin(ctx context.Context, t *testing.T, k kit.Kit, lock string, more []string) {
	var said strings.Builder
	k.Said = io.MultiWriter(k.Said, &said)
	out := t.TempDir()
	build := func(role string) error {
		_, err := k.Imgbuild(ctx, append([]string{role, "-o", out, "--lock", lock, "--format", "ignition,cloud-init,nocloud", "--base", "debian",
			"--set", "host.payload=https://files.example/nodes", "--inline-join", filepath.Join(k.Dir, "cluster", role+".yaml")}, more...)...)
		return err
	}
	if err := build("master"); err == nil || !strings.Contains(said.String(), "keys that sign for the cluster") {
		t.Errorf("a master's node config: %v", err)
	}
	must(t, build("worker"))
	data, err := os.ReadFile(filepath.Join(k.Dir, "cluster", "worker.yaml"))
	must(t, err)
	c, err := config.Parse(data)
	must(t, err)
	token := c.Token.Reveal()
	have := map[string]bool{"worker.ign": true, "worker.cloud-config": true, "worker.cidata.iso": true}
	files, err := os.ReadDir(out)
	must(t, err)
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(out, f.Name()))
		must(t, err)
		info, err := f.Info()
		must(t, err)
		if d, err := convert.Read(f.Name(), text); err == nil { // Ignition may hold it compressed
			text, err = d.Spec()
			must(t, err)
		}
		if has := strings.Contains(string(text), token); has != have[f.Name()] || has && info.Mode().Perm() != 0o600 {
			t.Errorf("%s, mode %v: the token is there: %v", f.Name(), info.Mode(), has)
		}
	}
	if strings.Contains(said.String(), token) {
		t.Error("the token is in what was said")
	}
	cache, err := store.DefaultDir()
	must(t, err)
	if found, err := run.Output(ctx, run.Cmd{Name: "grep", Args: []string{"-rlF", token, cache}}); err == nil {
		t.Errorf("the token is in the cache: %s", found)
	}
}
