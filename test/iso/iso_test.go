// Package iso boots machines from an install medium, as a CD and as a stick.
package iso

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

var folder = flag.String("dir", "", "folder with bin/, and out/ of `imgbuild worker --format iso,raw --set base.kernel=generic`: nothing is built; empty: all is")

// limit is how long one stage may take on emulated processors.
const limit = 40 * time.Minute

// TestISO builds an install medium, has others read it, and installs a worker from it.
func TestISO(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	k := kit.Kit{Dir: t.TempDir(), Said: os.Stderr}
	out := filepath.Join(k.Dir, "out")
	if *folder != "" {
		k.Bin, out = filepath.Join(*folder, "bin"), filepath.Join(*folder, "out")
	} else {
		k.Bin = filepath.Join(k.Dir, "bin")
		kit.Must(t, k.BuildTools(t.Context(), "../.."))
		_, err := k.Image(t.Context(), "worker", "iso,raw", "--set", "base.kernel=generic")
		kit.Must(t, err)
	}
	kit.Must(t, k.Identity(t.Context()))
	iso, raw := filepath.Join(out, "worker.iso"), filepath.Join(out, "worker.raw")
	t.Run("readers", func(t *testing.T) { readers(t, iso, raw) })
	t.Run("stick", func(t *testing.T) {
		m := start(t, k, boottest.Node{Name: "stick", Stick: iso})
		says(t, m, "was not told which disk to write: nothing is written", "a disk of this machine: /dev/vda, 24576 MiB")
	})
	t.Run("cd", func(t *testing.T) {
		copied := filepath.Join(k.Dir, "w1.iso")
		_, err := k.Imgbuild(t.Context(), "stamp", iso, "-o", copied, "--config", filepath.Join(k.Dir, "cluster/worker.yaml"), "--hostname", "w1", "--disk", "/dev/vda")
		kit.Must(t, err)
		m := start(t, k, boottest.Node{Name: "w1", CD: copied})
		says(t, m, "writing the medium's image to /dev/vda", "reading /dev/vda back", "/dev/vda is written; rebooting", // and the medium is left in
			"imgbuild: worker: ")
	})
}

// start powers a machine on whose disk is empty.
func start(t *testing.T, k kit.Kit, n boottest.Node) *boottest.Machine {
	t.Helper()
	n.Image, n.IP, n.Memory, n.CPUs = filepath.Join(k.Dir, "empty.raw"), kit.WorkerIP, 1024, 2
	kit.Must(t, os.WriteFile(n.Image, make([]byte, 1<<20), 0o600))
	m, err := boottest.Start(t.Context(), n, filepath.Join(k.Dir, "machines"), "", false)
	kit.Must(t, err)
	t.Cleanup(func() { _ = m.Kill() })
	return m
}

// says waits until the console has all lines, one after the other.
func says(t *testing.T, m *boottest.Machine, lines ...string) {
	t.Helper()
	began := repro.Now()
	for at := 0; len(lines) > 0; time.Sleep(time.Second) {
		text, err := os.ReadFile(filepath.Join(m.Dir, "console.log"))
		kit.Must(t, err)
		if i := strings.Index(string(text[at:]), lines[0]); i >= 0 {
			t.Logf("%4.0f s  %s", repro.Now().Sub(began).Seconds(), lines[0])
			at, lines = at+i, lines[1:]
			continue
		}
		select {
		case <-m.Done():
			t.Fatalf("the machine has ended: %v\n%s", m.Err(), m.Tail(60))
		default:
		}
		if repro.Now().Sub(began) > limit {
			t.Fatalf("it does not say %q:\n%s", lines[0], m.Tail(60))
		}
	}
}

// readers has the medium read by what did not write it.
func readers(t *testing.T, iso, raw string) {
	tool := func(name string, args ...string) string {
		out, err := run.Output(t.Context(), run.Cmd{Name: name, Args: args, Stderr: io.Discard})
		if err != nil {
			t.Error(err)
		}
		return string(out)
	}
	esp := filepath.Join(t.TempDir(), "esp")
	for _, c := range []struct {
		want string
		cmd  []string
	}{
		{`El Torito boot img : +1 +UEFI +y +none .* 512\n`, []string{"xorriso", "-indev", "stdio:" + iso, "-report_el_torito", "plain"}},
		{`El Torito img path : +1 +/EFI.IMG`, []string{"xorriso", "-indev", "stdio:" + iso, "-report_el_torito", "plain"}},
		{`No problems found`, []string{"sgdisk", "-v", iso}},
		{`1 +2048 .* EF00 +imgbuild-medium\n`, []string{"sgdisk", "-p", iso}},
		{`ISO 9660.*IMGBUILD_WORKER.*bootable`, []string{"file", "-k", iso}},
		{``, []string{"isoinfo", "-i", iso, "-x", "/README.TXT;1"}},
		{``, []string{"sh", "-c", `isoinfo -i "$0" -x '/EFI.IMG;1' >"$1"`, iso, esp}},
		{`files, `, []string{"fsck.vfat", "-n", esp}},
	} {
		if out := tool(c.cmd[0], c.cmd[1:]...); !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%q does not say %q:\n%s", c.cmd, c.want, out)
		}
	}
	f, err := os.Open(raw)
	kit.Must(t, err)
	defer f.Close()
	want := sha256.New()
	_, err = io.Copy(want, f)
	kit.Must(t, err)
	got := sha256.New()
	kit.Must(t, run.Run(t.Context(), run.Cmd{Name: "isoinfo", Args: []string{"-i", iso, "-x", "/DISK.RAW;1"}, Stdout: got}))
	if a, b := fmt.Sprintf("%x", got.Sum(nil)), fmt.Sprintf("%x", want.Sum(nil)); a != b {
		t.Errorf("DISK.RAW has the digest %s, the format raw %s", a, b)
	}
}
