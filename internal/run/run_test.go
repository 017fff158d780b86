package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sh runs a script; its text is the test's, never a caller's.
func sh(script string) Cmd { return Cmd{Name: "sh", Args: []string{"-c", script}} }

func TestRun(t *testing.T) {
	var out, errs bytes.Buffer
	c := sh("read line; echo got $line in $(pwd); echo warning >&2; echo $GREETING")
	c.Stdin, c.Stdout, c.Stderr, c.Dir, c.Env = strings.NewReader("input\n"), &out, &errs, "/", []string{"GREETING=hello"}
	if err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"got input in /\nhello\n", "warning\n"}, []string{out.String(), errs.String()}); d != "" {
		t.Error(d)
	}
}

// TestOneWriterForBoth wants nothing lost where both streams go to one writer.
func TestOneWriterForBoth(t *testing.T) {
	var all strings.Builder
	c := sh("(for i in $(seq 3000); do echo out; done) & for i in $(seq 3000); do echo err >&2; done; wait")
	c.Stdout, c.Stderr = &all, &all
	if err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if out, errs := strings.Count(all.String(), "out\n"), strings.Count(all.String(), "err\n"); out != 3000 || errs != 3000 {
		t.Errorf("%d lines of output, %d of errors", out, errs)
	}
}

func TestUsage(t *testing.T) {
	var used Usage
	c := sh("sleep 0.05; head -c 30000000 /dev/zero | tail -c 30000000 >/dev/null")
	c.Used = &used
	if err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if used.Wall < 50*time.Millisecond || used.CPU <= 0 || used.Peak < 30_000_000 {
		t.Errorf("used %+v", used)
	}
}

func TestArgumentsAreNoShell(t *testing.T) {
	args := []string{"-n", "$HOME; `id` && x|y", "a b", ""}
	got, err := Output(t.Context(), Cmd{Name: "printf", Args: append([]string{"<%s>"}, args[1:]...)})
	if want := "<" + strings.Join(args[1:], "><") + ">"; err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestFailureCarriesWhatTheToolSaid(t *testing.T) {
	got, err := Output(t.Context(), sh("echo partly; echo 'cannot open x' >&2; exit 3"))
	if want := "sh: exit status 3: cannot open x"; err == nil || err.Error() != want || string(got) != "partly\n" {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := Output(t.Context(), sh("exit 4")); err == nil || err.Error() != "sh: exit status 4" {
		t.Error(err)
	}
	quiet := sh("echo long story >&2; exit 5")
	quiet.Quiet = true
	if err := Run(t.Context(), quiet); err == nil || err.Error() != "sh: exit status 5" {
		t.Error(err)
	}
}

func TestOnlyTheTailIsKept(t *testing.T) {
	err := Run(t.Context(), sh("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; echo the end >&2; exit 1"))
	if err == nil || !strings.HasSuffix(err.Error(), "line 2999\nthe end") || len(err.Error()) > 4200 || strings.Contains(err.Error(), "line 0\n") {
		t.Errorf("%d bytes: %.80v", len(fmt.Sprint(err)), err)
	}
}

func TestEnvironmentIsClean(t *testing.T) {
	t.Setenv("IMGBUILD_TEST_SECRET", "leaked")
	t.Setenv("LD_PRELOAD", "")
	t.Setenv("PATH", os.Getenv("PATH"))
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	out, err := Output(t.Context(), Cmd{Name: "env", Env: []string{"MINE=1"}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	for _, want := range []string{"LC_ALL=C.UTF-8", "TZ=UTC", "MINE=1"} {
		if !slices.Contains(lines, want) {
			t.Errorf("%s is missing in %q", want, lines)
		}
	}
	if strings.Contains(string(out), "leaked") || strings.Contains(string(out), "LD_PRELOAD") || !strings.Contains(string(out), ":/usr/sbin") {
		t.Errorf("environment %q", lines)
	}
}

func TestMissingTool(t *testing.T) {
	err := Need(map[string]string{"sh": "dash", "zz-no-such-tool": "zz-package", "aa-no-such-tool": "aa-package"})
	want := "aa-no-such-tool is not installed: install the package aa-package\nzz-no-such-tool is not installed: install the package zz-package"
	if err == nil || err.Error() != want || !IsMissingTool(err) || !IsMissingTool(fmt.Errorf("checking: %w", err)) {
		t.Errorf("%v", err)
	}
	var missing *MissingToolError
	if !errors.As(err, &missing) || missing.Tool != "aa-no-such-tool" {
		t.Errorf("%v", missing)
	}
	if err := Need(map[string]string{"sh": "dash"}); err != nil || IsMissingTool(err) {
		t.Error(err)
	}
	if err := Run(t.Context(), Cmd{Name: "zz-no-such-tool"}); err == nil || err.Error() != "zz-no-such-tool: not found in PATH" {
		t.Error(err)
	}
}

func TestLookFindsSbin(t *testing.T) {
	if _, err := os.Stat("/usr/sbin/chroot"); err != nil {
		t.Skip("no chroot in /usr/sbin")
	}
	t.Setenv("PATH", "/usr/bin")
	if got, err := Look("chroot"); err != nil || !strings.HasSuffix(got, "sbin/chroot") {
		t.Error(got, err)
	}
}

// start runs a script that writes its own and a child's number to a file, cancels
// it when both are there and returns the numbers, the error and how long it took.
func start(t *testing.T, script string) (pids []int, took time.Duration, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	c := sh(script)
	c.Env = []string{"PIDS=" + file}
	go func() { done <- Run(ctx, c) }()
	for range 500 {
		raw, _ := os.ReadFile(file)
		if n, _ := fmt.Sscan(string(raw), new(int), new(int)); n == 2 && strings.HasSuffix(string(raw), "\n") {
			pids = make([]int, 2)
			_, _ = fmt.Sscan(string(raw), &pids[0], &pids[1])
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if pids == nil {
		t.Fatal("the script did not start")
	}
	began := time.Now()
	cancel()
	err = <-done
	return pids, time.Since(began), err
}

// gone waits until a process has ended (a zombie has).
func gone(pid int) bool {
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestCancelEndsTheWholeGroup(t *testing.T) {
	for name, script := range map[string]string{
		"obedient":                      `sleep 300 & echo $$ $! >$PIDS; wait`,
		"child that does not hear TERM": `(trap "" TERM; exec sleep 300 >/dev/null 2>&1) & sleep 0.2; echo $$ $! >$PIDS; wait`,
	} {
		t.Run(name, func(t *testing.T) {
			pids, took, err := start(t, script)
			if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "sh: ") {
				t.Errorf("error %v", err)
			}
			if took > time.Minute { // of the five that it would sleep
				t.Errorf("took %v", took)
			}
			for _, pid := range pids {
				if !gone(pid) {
					_ = syscall.Kill(pid, syscall.SIGKILL)
					t.Errorf("process %d lives on", pid)
				}
			}
		})
	}
}

func TestCancelOfTheDeaf(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	pids, took, err := start(t, `trap "" TERM; sleep 300 & echo $$ $! >$PIDS; while :; do wait; done`)
	if !errors.Is(err, context.Canceled) || took < 9*time.Second || took > time.Minute {
		t.Errorf("error %v after %v", err, took)
	}
	for _, pid := range pids {
		if !gone(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Errorf("process %d lives on", pid)
		}
	}
}

func TestDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Run(ctx, Cmd{Name: "sleep", Args: []string{"300"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := Run(ctx, Cmd{Name: "sleep", Args: []string{"300"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("started after the end: %v", err)
	}
}
