package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/run"
)

func TestReadConstants(t *testing.T) {
	const head = "package constants\nconst (\n\tDefaultEtcdVersion = \"3.6.0-0\"\n\tCoreDNSVersion = \"v1.13.1\"\n\tPauseVersion = \"3.10.1\"\n)\n"
	for name, test := range map[string]struct {
		src, version, etcd, say string
	}{
		"a table of minors":            {head + `var SupportedEtcdVersion = map[uint8]string{34: "a", 35: "b"}`, "1.34.9", "a", ""},
		"newer than the table":         {head + `var SupportedEtcdVersion = map[uint8]string{34: "a", 35: "b"}`, "1.37.0", "b", ""},
		"older than the table":         {head + `var SupportedEtcdVersion = map[uint8]string{34: "a", 35: "b"}`, "1.31.0", "a", ""},
		"a table that counts back":     {head + `var SupportedEtcdVersion = map[uint8]string{uint8(getSkewedKubernetesVersion(-1).Minor()): "a", uint8(getSkewedKubernetesVersion(0).Minor()): "b"}`, "1.35.4", "b", ""},
		"no table":                     {head, "1.35.4", "3.6.0-0", ""},
		"constants that are not there": {"package constants", "1.35.4", "", "are not where they were"},
		"no version":                   {head, "newest", "", "is no Kubernetes version"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readConstants("constants.go", test.src, test.version)
			if test.say != "" {
				fails(t, err, test.say)
				return
			}
			if diff := cmp.Diff(Constants{Etcd: test.etcd, CoreDNS: "v1.13.1", Pause: "3.10.1"}, got); diff != "" || err != nil {
				t.Error(diff, err)
			}
		})
	}
}

func TestWorkspaceReplacesStagingByTheSameRelease(t *testing.T) {
	dir := t.TempDir()
	mod := filepath.Join(dir, "theirs.mod")
	text := "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\texample.com/a => example.com/b v1.2.3\n\texample.com/c => ../c\n)\n"
	if err := os.WriteFile(mod, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	info := moduleInfo{Path: "k8s.io/kubernetes", Version: "v1.37.2", GoMod: mod, Sum: "h1:x="}
	if err := workspace(dir, info, "go1.26.8"); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
	want := "module imgbuild.invalid/build\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes v1.37.2\n\nreplace k8s.io/api => k8s.io/api v0.37.2\n\nreplace example.com/a => example.com/b v1.2.3\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	sum, _ := os.ReadFile(filepath.Join(dir, "go.sum"))
	if string(sum) != "k8s.io/kubernetes v1.37.2 h1:x=\n" {
		t.Errorf("go.sum is %q", sum)
	}
	fails(t, workspace(dir, info, "go1.24.4"), "needs Go 1.26.0 or newer, and go1.24.4 is here")
}

func TestGoModuleRefuses(t *testing.T) {
	o, _ := options(t)
	part := lock.Request{Kind: lock.KindPart, Name: "kubeadm", Version: "1.37.2", Source: "gomodule"}
	t.Run("a part that is in no table", func(t *testing.T) {
		_, err := New(o).Resolve(t.Context(), []lock.Request{{Kind: lock.KindPart, Name: "doom", Source: "gomodule"}})
		fails(t, err, `no Go module is known for "doom"`)
	})
	t.Run("an image that is in no table", func(t *testing.T) {
		_, err := New(o).Resolve(t.Context(), []lock.Request{{Kind: lock.KindImage, Name: "docker.io/doom:1", Source: "gomodule"}})
		fails(t, err, `no Go module is known for image "docker.io/doom:1"`)
	})
	t.Run("a source that is in no table", func(t *testing.T) {
		_, err := New(o).Resolve(t.Context(), []lock.Request{{Name: "kubeadm", Source: "floppy"}})
		fails(t, err, "choose one of auto, dir, gomodule, oci, release")
	})
	t.Run("a host without Go", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := New(o).Resolve(t.Context(), []lock.Request{part})
		var missing *run.MissingToolError
		if !errors.As(err, &missing) || missing.Package != "golang-go" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("modules that nothing vouches for", func(t *testing.T) {
		t.Setenv("GOSUMDB", "off")
		_, err := New(o).Resolve(t.Context(), []lock.Request{part})
		fails(t, err, "the Go checksum database is switched off here (GOSUMDB=off)")
	})
}

// TestGoModuleTakesWhatTheLockedCompilersMade has no compiler: what other ones made is not taken.
func TestGoModuleTakesWhatTheLockedCompilersMade(t *testing.T) {
	o, _ := options(t)
	t.Setenv("PATH", t.TempDir())
	pin := lock.Pin{Kind: lock.KindPart, Name: "pause", Version: "3.10.2", Arch: "amd64", Source: "gomodule", URL: "k8s.io/kubernetes@v1.37.2", Digest: "h1:x=", Args: map[string]string{"go": "go1.26.8", "cc": "gcc 14"}}
	part, err := partOf(pin.Name)
	if err != nil {
		t.Fatal(err)
	}
	digest, _, err := o.Store.Put(t.Context(), strings.NewReader("made by Go and C"))
	if err == nil {
		err = o.Store.Record(newJob(pin, part, "go1.26.8", "gcc 14").key, digest)
	}
	if err != nil {
		t.Fatal(err)
	}
	parts, err := New(o).Parts(t.Context(), []lock.Pin{pin})
	if err != nil || filepath.Base(parts["pause"].File) != strings.TrimPrefix(digest, "sha256:") {
		t.Errorf("%+v, %v, want %s", parts, err, digest)
	}
	for _, args := range []map[string]string{{"go": "go1.26.8", "cc": "gcc 15"}, {"go": "go1.26.9", "cc": "gcc 14"}, {"go": "go1.26.8"}} {
		pin.Args = args
		if _, err := New(o).Parts(t.Context(), []lock.Pin{pin}); !run.IsMissingTool(err) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// TestGoModuleBuildsTheSameBytesElsewhere builds a small plugin and pause twice,
// with nothing in common but the module cache, and a third time from the store.
func TestGoModuleBuildsTheSameBytesElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("downloads modules and compiles for about a minute")
	}
	reqs := []lock.Request{
		{Kind: lock.KindPart, Name: "flannel-cni", Version: "0.9.1", Source: "gomodule"},
		{Kind: lock.KindPart, Name: "pause", Version: "3.10.2", Source: "gomodule"},
	}
	var builds []map[string]string
	var last *Set
	var pins []lock.Pin
	for range 2 {
		t.Setenv("GOCACHE", filepath.Join(t.TempDir(), "another", "path"))
		o, _ := options(t)
		last = New(o)
		var err error
		if pins, err = last.Resolve(t.Context(), reqs); err != nil {
			t.Fatal(err)
		}
		parts, err := last.Parts(t.Context(), pins)
		if err != nil {
			t.Fatal(err)
		}
		build := map[string]string{}
		for name, p := range parts {
			build[name] = filepath.Base(p.File)
			if err := checkELF(p.File, "amd64"); err != nil {
				t.Error(err)
			}
		}
		builds = append(builds, build)
	}
	if diff := cmp.Diff(builds[0], builds[1]); diff != "" {
		t.Error(diff)
	}
	t.Run("from the store, without a program", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if _, err := New(last.opt).Parts(t.Context(), pins); err != nil {
			t.Error(err)
		}
	})
	t.Run("a sum that is not the lock's", func(t *testing.T) {
		o, _ := options(t)
		bad := pins[0]
		bad.Digest = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
		_, err := New(o).Parts(t.Context(), []lock.Pin{bad})
		fails(t, err, "the lock wants "+bad.Digest+", the checksum database vouches for "+pins[0].Digest)
	})
	t.Run("a version that does not exist", func(t *testing.T) {
		o, _ := options(t)
		_, err := New(o).Resolve(t.Context(), []lock.Request{{Kind: lock.KindPart, Name: "flannel-cni", Version: "0.9.99", Source: "gomodule"}})
		if err == nil || !strings.Contains(err.Error(), "0.9.99") {
			t.Errorf("error %v", err)
		}
	})
}
