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
	for _, args := range [][]string{{"build", "-o", filepath.Join(t.TempDir(), "imgbuild"), "./cmd/imgbuild"}, {"vet", "./..."}} {
		env := []string{"GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0"}
		if err := run.Run(t.Context(), run.Cmd{Name: "go", Args: args, Dir: "../..", Env: env}); err != nil {
			t.Errorf("go %s: %v", args[0], err)
		}
	}
}
