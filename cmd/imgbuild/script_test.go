package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imgbuild": func() { os.Exit(execute(context.Background(), os.Args[1:])) }})
}

// TestScripts runs the real command line through the scripts in testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CACHE_HOME", e.WorkDir+"/cache")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("ONLY_IMGBUILD", filepath.SplitList(e.Getenv("PATH"))[0]) // testscript puts its commands first
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "apiserver": apiserver, "freeport": freeport},
	})
}

// apiserver serves the API of an identity until the script ends: apiserver DIR
// ADDR, or apiserver DIR ADDR LIFE for a certificate that ends then.
func apiserver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: apiserver DIR ADDR [LIFE]")
	}
	life := time.Hour
	if len(args) == 3 {
		var err error
		life, err = time.ParseDuration(args[2])
		ts.Check(err)
	}
	f := serveAPI(scriptT{ts}, ts.MkAbs(args[0]), args[1], life)
	ts.Defer(f.Close)
}

// freeport puts an address that nobody listens on into a variable.
func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport VARIABLE")
	}
	ts.Setenv(args[0], freePort(scriptT{ts}))
}

// scriptT lets a script stand where a test is wanted.
type scriptT struct{ ts *testscript.TestScript }

func (s scriptT) Helper() {}

func (s scriptT) Fatal(args ...any) { s.ts.Fatalf("%v", args...) }

// exits runs imgbuild and wants an exit code: exits 3 master -f node.yaml.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARG...")
	}
	err := ts.Exec("sh", append([]string{"-c", `imgbuild "$@"; code=$?; [ $code -eq ` + args[0] + ` ] || { echo "exit code $code" >&2; exit 1; }`, "sh"}, args[1:]...)...)
	if err != nil {
		ts.Fatalf("imgbuild %v: want exit code %s: %v", args[1:], args[0], err)
	}
}
