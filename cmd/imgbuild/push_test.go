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
	script := commands(t, string(page)) + `
cmp out/worker.raw pulled/worker.raw
cmp out/worker.manifest.json pulled/worker.manifest.json
cmp out/worker.raw raws/worker.raw
exec imgbuild push out registry.example/nodes:json --output json
stdout '"reference": ".*/nodes@sha256:[0-9a-f]+"'
stdout '"movedBytes": 0'
exec imgbuild pull registry.example/nodes:json -o json --output json
stdout '"outputs": \['
exits 6 pull registry.example/nodes:none
stderr 'imgbuild: asking for .*nodes:none: .*MANIFEST_UNKNOWN'
exits 2 pull me:hunter2@registry.example/nodes:none
! stderr hunter2
exits 2 push none registry.example/nodes:none
exits 2 pull registry.example/nodes:json -o json --role master
cp out/worker.manifest.json out/worker.raw
exits 7 push out registry.example/nodes:changed
`
	script = strings.ReplaceAll(script, "registry.example", strings.TrimPrefix(server.URL, "http://"))
	file := filepath.Join(t.TempDir(), "page.txtar")
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{file}, Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits}, Setup: func(e *testscript.Env) error {
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
