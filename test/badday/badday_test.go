// Package badday gives the real command line bad days: killed builds, full disks,
// damaged caches, crowds, hostile words. Each kind counts what it tried and what
// held; `make reliability` runs them in full and writes docs/reliability.md.
package badday

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

var (
	rounds = flag.Int("rounds", 0, "how often each campaign tries, up to its own limit (0: a few times)")
	update = flag.Bool("update", false, "write what was counted into docs/reliability.md")
)

const page = "../../docs/reliability.md"

// campaigns are the rows of the page, in its order: what is done, and who says
// that it held.
var campaigns = []struct{ name, judge string }{
	{"kill -9 of a build at a random time", "the next plain build: the same sha256, nothing left in the folder"},
	{"no space left, for outputs or for the cache", "one line that says so, no output, nothing left; with space the same sha256"},
	{"a cache entry corrupt, short, empty, gone or unreadable", "the same sha256, or one clear error; never another image"},
	{"a cache entry that rots on the disk", "one clear error that names it, nothing left; then the same sha256"},
	{"a package that comes wrong, short, late, elsewhere or not at all", "the same sha256 after a retry, or exit code 6 and nothing filed"},
	{"a bit flipped in image, bill, statement, manifest or signature", "`imgbuild verify --key`"},
	{"eight builds at once on one cache", "the same sha256 from each"},
	{"a pin of the lock lost, doubled or edited", "exit code 4, the lost one by name, and what to run"},
	{"two first runs at once in one folder", "both roles in one lock, and the same pins for what both ask"},
	{"a hostile word in a field of the spec", "refused with path and line; or systemd-analyze, nft and the plan's own lines unmoved"},
	{"a hostile word in a field of a node config", "refused with the field, or kubeadm config validate"},
	{"YAML that explodes, nests or repeats", "one error within 1 s of CPU time and 100 MiB"},
	{"a canary in environment and arguments of a build", "not in image, documents, cache, log"},
}

var (
	folder string
	tools  kit.Kit

	mu     sync.Mutex
	counts = map[string][2]int{} // tried, held
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == measured {
		measure(os.Args[2:])
	}
	flag.Parse()
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else if code = m.Run(); code == 0 && *update {
		if err := os.WriteFile(page, report(), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

func prepare() (err error) {
	if testing.Short() {
		return nil
	}
	if folder, err = os.MkdirTemp("", "imgbuild-badday-"); err != nil {
		return err
	}
	tools = kit.Kit{Bin: filepath.Join(folder, "bin"), Dir: folder, Said: io.Discard}
	return tools.BuildTools(context.Background(), "../..")
}

// held counts one try of a campaign, and fails the test where it did not hold.
func held(t *testing.T, campaign string, ok bool, format string, args ...any) {
	t.Helper()
	if !slices.ContainsFunc(campaigns, func(c struct{ name, judge string }) bool { return c.name == campaign }) {
		t.Fatalf("no campaign is called %q", campaign)
	}
	mu.Lock()
	defer mu.Unlock()
	c := counts[campaign]
	c[0]++
	if ok {
		c[1]++
	} else {
		t.Errorf(format, args...)
	}
	counts[campaign] = c
}

// times is how often: few without -rounds, and never more than all.
func times(few, all int) int {
	if *rounds > 0 {
		return min(*rounds, all)
	}
	return few
}

// row finds what the page says of a campaign.
func row(text, campaign string) (tried, held int) {
	if _, rest, ok := strings.Cut(text, "| "+campaign+" | "); ok {
		_, _ = fmt.Sscanf(rest, "%d | %d |", &tried, &held) // zeros tell that it could not be read
	}
	return tried, held
}

// report is the page: of a campaign that did not run, what the page said before.
func report() []byte {
	old, _ := os.ReadFile(page)
	var b strings.Builder
	b.WriteString("# Bad days, counted\n\n`make reliability` wrote this. A few of each kind run in `make test`.\n\n| what is done | tried | held | who says so |\n|---|---|---|---|\n")
	for _, c := range campaigns {
		tried, held := counts[c.name][0], counts[c.name][1]
		if tried == 0 {
			tried, held = row(string(old), c.name)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %s |\n", c.name, tried, held, c.judge)
	}
	return []byte(b.String())
}

// TestPage wants every campaign on the page, each with as many held as tried.
func TestPage(t *testing.T) {
	if *update {
		t.Skip("the page is about to be written")
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range campaigns {
		if tried, held := row(string(text), c.name); tried == 0 || tried != held {
			t.Errorf("%s: %d of %d: run `make reliability`", c.name, held, tried)
		}
	}
}

// first is one good build of the worker, made once: its folder, and its digest.
var first = sync.OnceValues(func() (string, error) {
	out := filepath.Join(folder, "first")
	_, err := build(context.Background(), out, "")
	if err != nil {
		return "", err
	}
	return digest(filepath.Join(out, "worker.raw"))
})

func good(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds images: left out by -short")
	}
	sum, err := first()
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func lockFile() string { return filepath.Join(folder, "imgbuild.lock") }

// build runs imgbuild; the error is an *exec.ExitError, and said is its last words.
func build(ctx context.Context, out, cache string, more ...string) (said string, err error) {
	args := append([]string{"worker", "-o", out, "--lock", lockFile(), "--format", "raw"}, more...)
	if cache != "" {
		args = append(args, "--cache", cache)
	}
	var words strings.Builder
	err = run.Run(ctx, run.Cmd{Name: filepath.Join(tools.Bin, "imgbuild"), Args: args, Stderr: &words, Quiet: true})
	return words.String(), err
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}

// left are the entries of a folder that are not an earlier build's final files.
func left(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out
}

// exitCode is the code of a command that ended by itself, or -1.
func exitCode(err error) int {
	var e *exec.ExitError
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return -1
}

// complaint is the last line that a command said, which is its error.
func complaint(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return lines[len(lines)-1]
}

// warm is a cache of this process's own with what the good build uses, made once.
var warm = sync.OnceValues(func() (string, error) {
	dir, out, start := filepath.Join(folder, "warm"), filepath.Join(folder, "second"), time.Now()
	defer os.RemoveAll(out)
	if said, err := build(context.Background(), out, ""); err != nil {
		return "", fmt.Errorf("%w\n%s", err, said)
	}
	return dir, kit.Warm(context.Background(), dir, start)
})

// ownCache is a copy of warm in which files are shared by hard links, access times with them.
func ownCache(t *testing.T) string {
	t.Helper()
	from, err := warm()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(folder, "cache-"+strings.ReplaceAll(t.Name(), "/", "_"))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := run.Run(t.Context(), run.Cmd{Name: "cp", Args: []string{"-al", from, dir}}); err != nil {
		t.Fatal(err)
	}
	return dir
}
