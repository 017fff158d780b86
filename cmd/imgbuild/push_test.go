package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestRegistryPage runs what docs/registry.md shows, against a registry in memory.
func TestRegistryPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close) // the script runs when this returned
	script := strings.ReplaceAll(commands(t, string(page)), "registry.example", strings.TrimPrefix(server.URL, "http://")) + `
cmp out/worker.raw pulled/worker.raw
cmp out/worker.manifest.json pulled/worker.manifest.json
cmp out/worker.raw raws/worker.raw
! exec imgbuild pull ` + strings.TrimPrefix(server.URL, "http://") + `/nodes:none
stderr 'imgbuild: asking for .*nodes:none: .*MANIFEST_UNKNOWN'
`
	file := filepath.Join(t.TempDir(), "page.txtar")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{file}, Setup: func(e *testscript.Env) error {
		e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
		e.Setenv("HOME", e.WorkDir)
		disk := []byte(strings.Repeat("a disk\n", 1000))
		manifest := fmt.Sprintf(`{"role":"worker","arch":"amd64","outputs":[{"format":"raw","file":"worker.raw","size":%d,"sha256":"%x"}],"documents":[]}`, len(disk), sha256.Sum256(disk))
		for name, text := range map[string][]byte{"worker.raw": disk, "worker.manifest.json": []byte(manifest)} {
			if err := os.MkdirAll(e.WorkDir+"/out", 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(e.WorkDir+"/out/"+name, text, 0o600); err != nil {
				return err
			}
		}
		return nil
	}})
}
