package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestClusterPage runs what docs/cluster.md shows, against an API server of the
// identity that the page makes: it comes up where the page says that it runs.
func TestClusterPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(page), "## Once it runs")
	if !ok {
		t.Fatal("the page does not say from when on the cluster runs")
	}
	addr := freePort(t)
	script := commands(t, before) + "apiserver demo " + addr + " " + time.Hour.String() + "\n" + commands(t, after)
	file := filepath.Join(t.TempDir(), "page.txtar")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(script, "10.0.0.10:6443", addr)), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{file},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"apiserver": apiserver}})
}

// commands are the lines of a page's shell blocks, as a script.
func commands(t *testing.T, page string) string {
	var b strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			b.WriteString("exec " + strings.TrimSpace(line) + "\n")
		}
	}
	if b.Len() == 0 {
		t.Error("no command on the page")
	}
	return b.String()
}
