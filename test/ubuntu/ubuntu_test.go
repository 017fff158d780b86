// Package ubuntu builds nodes of Ubuntu LTS on whatever host this is, and boots a cluster of them.
package ubuntu

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/images"
	"github.com/imgbuild/imgbuild/internal/archivetest"
	"github.com/imgbuild/imgbuild/test/kit"
)

const name = "ubuntu-noble"

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

// TestUbuntu makes a worker twice, to the byte the same, and a cluster of a master and a worker.
func TestUbuntu(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	base, err := images.Find(name)
	kit.Must(t, err)
	args := []string{"-f", "testdata/commands.yaml", "--set", "base.mirror=" + archivetest.Ubuntu(t, base.Suite)}
	s := kit.NewSite(t)
	kit.Must(t, s.Identity(t.Context()))
	out := filepath.Join(s.Dir, "out")
	made := map[string]string{}
	for _, role := range []string{"master", "worker"} {
		said, err := s.Imgbuild(t.Context(), append([]string{role, "-o", out, "--format", "raw"}, args...)...)
		kit.Must(t, err)
		made[role] = digest(said)
	}
	s.Slow(t, 0.25) // a kernel of all servers' drivers, on emulated processors
	// systemd 255 takes no more than 4 KiB of credentials from SMBIOS, which a master's are not.
	s.Pair(t, kit.Pair{Images: out, Arch: "amd64", Args: args, Info: "osImage", Want: `Ubuntu 24\.04\.[0-9]* LTS`, Via: boottest.Seed, Limit: limit})
	t.Logf("timeline:\n%s", s.Timeline())
	cold := []string{"worker", "-o", filepath.Join(s.Dir, "again"), "--lock", filepath.Join(out, "imgbuild.lock"), "--cache", s.Cold(t), "--format", "raw", "--offline"}
	said, err := s.Imgbuild(t.Context(), append(cold, args...)...)
	kit.Must(t, err)
	if again := digest(said); again == "" || again != made["worker"] {
		t.Errorf("the worker from a cold cache is %q, was %q", again, made["worker"])
	}
}

// digest is the word of what imgbuild says that is one.
func digest(said string) string {
	for word := range strings.FieldsSeq(said) {
		if strings.HasPrefix(word, "sha256:") {
			return word
		}
	}
	return ""
}
