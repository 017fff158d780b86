package archtest

import (
	"path/filepath"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

// TestDarwin compiles imgbuild for macOS, and type-checks every package and test there but
// those that say that they are Linux's.
func TestDarwin(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for minutes where the cache is cold")
	}
	for _, arch := range []string{"arm64", "amd64"} {
		darwin(t, arch, "build", "-o", filepath.Join(t.TempDir(), "imgbuild"), "./cmd/imgbuild")
	}
	darwin(t, "arm64", "vet", "./...")
}

func darwin(t *testing.T, arch string, args ...string) {
	t.Helper()
	env := []string{"GOOS=darwin", "GOARCH=" + arch, "CGO_ENABLED=0"}
	if err := run.Run(t.Context(), run.Cmd{Name: "go", Args: args, Dir: "../..", Env: env}); err != nil {
		t.Errorf("%s: go %s: %v", arch, args[0], err)
	}
}
