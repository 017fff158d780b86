package badday

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
)

// measured, as the first argument of this test, makes it run the others as a
// command and say what that took: a child's peak counts what its parent held when
// it began (execve(2) keeps the mark), so the parent must be a small one.
const measured = "measured"

func measure(command []string) {
	var used run.Usage
	err := run.Run(context.Background(), run.Cmd{Name: command[0], Args: command[1:], Stderr: os.Stderr, Quiet: true, Used: &used})
	if err := json.NewEncoder(os.Stdout).Encode(used); err != nil || used.Peak == 0 {
		os.Exit(125)
	}
	os.Exit(max(exitCode(err), 0))
}

// TestExploding gives YAML that is small and would be large.
func TestExploding(t *testing.T) {
	const name = "YAML that explodes, nests or repeats"
	if testing.Short() {
		t.Skip("needs the built command: left out by -short")
	}
	const head = "apiVersion: imgbuild.dev/v1alpha1\nkind: Node\n"
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 10; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	for what, text := range map[string]string{
		"a billion laughs":   head + bomb,
		"a bomb of maps":     head + strings.ReplaceAll(strings.ReplaceAll(bomb, "[", "{k: ["), "]", "]}"),
		"depth":              head + "boot: " + strings.Repeat("[", 100_000),
		"depth, closed":      head + "boot: " + strings.Repeat("{a: ", 20_000) + strings.Repeat("}", 20_000),
		"a merge of itself":  head + "boot: &b\n  <<: *b\n",
		"a key twice":        head + "arch: amd64\narch: amd64\n",
		"a million keys":     head + "boot:\n  sysctls:\n" + strings.Repeat("    a.b: '1'\n", 1_000_000),
		"a very long scalar": head + "arch: " + strings.Repeat("a", 20<<20) + "\n",
		"no UTF-8":           head + "arch: \xff\xfe\xfd\n",
		"two documents":      head + "---\n" + head,
	} {
		file := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var used run.Usage
		var said, shown strings.Builder
		err := run.Run(t.Context(), run.Cmd{Name: os.Args[0], Args: []string{measured, filepath.Join(tools.Bin, "imgbuild"), "plan", "worker", "-f", file, "-o", t.TempDir()}, Stderr: &said, Stdout: &shown, Quiet: true})
		if err := json.Unmarshal([]byte(shown.String()), &used); err != nil {
			t.Fatalf("%s: %v: %s", what, err, shown.String())
		}
		ok := exitCode(err) == 3 && strings.HasPrefix(said.String(), "imgbuild: ") && strings.Contains(said.String(), "node.yaml") && len(said.String()) < 4096
		held(t, name, ok && used.CPU.Seconds() <= 1 && used.Peak <= 100<<20, "%s: %v after %s of CPU time and %d MiB: %.300s", what, err, used.CPU, used.Peak>>20, said.String())
	}
}

// TestCanary looks for words that only the environment and the signing key's file
// name hold, in everything that a build leaves.
func TestCanary(t *testing.T) {
	const name = "a canary in environment and arguments of a build"
	good(t)
	const canary = "c4n4ryD0N0TL34K"
	home, out := t.TempDir(), t.TempDir()
	cache := ownCache(t)
	var said strings.Builder
	err := run.Run(t.Context(), run.Cmd{Name: filepath.Join(tools.Bin, "imgbuild"), Args: []string{"worker", "-o", out, "--lock", lockFile(), "--cache", cache, "--format", "raw"},
		Stderr: &said, Stdout: &said, Env: []string{"HOME=" + home, "USER=" + canary, "LOGNAME=" + canary, "AWS_SECRET_ACCESS_KEY=" + canary, "HTTPS_PROXY=http://user:" + canary + "@127.0.0.1:9", "HOSTNAME=" + canary}})
	if err != nil {
		t.Fatal(err)
	}
	for place, script := range map[string]string{
		"the image and its documents": `! grep -rlF "$0" "$1"`,
		"the cache":                   `! find "$2" -newer "$1/imgbuild-start" -type f -exec grep -lF "$0" {} +`,
	} {
		if place == "the cache" {
			script = `! grep -rlF "$0" "$2/actions" "$2/notes" "$2/locks" "$2/tmp"`
		}
		words, err := run.Output(context.Background(), run.Cmd{Name: "sh", Args: []string{"-c", script, canary, out, cache}, Quiet: true})
		held(t, name, err == nil, "in %s: %s", place, words)
	}
	held(t, name, !strings.Contains(said.String(), canary), "the log holds it:\n%s", said.String())
}
