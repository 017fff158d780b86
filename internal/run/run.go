// Package run is the one user of os/exec: it starts a named tool with a clean,
// explicit environment and turns a failure into an error that carries the tail
// of what the tool said. It knows nothing of images or nodes.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// Cmd describes one run of a tool. Env is added to a minimal environment
// (PATH, HOME, TMPDIR, proxies); nil streams are discarded, except that stderr
// is always kept for the error message. Stdout and Stderr may be one writer.
type Cmd struct {
	Name   string
	Args   []string
	Dir    string
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Quiet  bool   // leave the tool's words out of the error: the caller reads Stderr itself
	Used   *Usage // where to put what the run took; nil: nowhere
}

// Usage is what a run took, the processes that it waited for included. Peak is
// the largest resident set of any one of them, in bytes.
type Usage struct {
	Wall, CPU time.Duration
	Peak      int64
}

// MissingToolError says that a tool is not installed and which Debian package has it.
type MissingToolError struct{ Tool, Package string }

func (e *MissingToolError) Error() string {
	return fmt.Sprintf("%s is not installed: install the package %s", e.Tool, e.Package)
}

// Need reports the first of the tools that PATH (and the sbin folders, which
// ordinary users often lack) does not hold. Tools maps a tool to its Debian package.
func Need(tools map[string]string) error {
	var errs []error
	for _, tool := range sortedKeys(tools) {
		if _, err := Look(tool); err != nil {
			errs = append(errs, &MissingToolError{tool, tools[tool]})
		}
	}
	return errors.Join(errs...)
}

// Look finds a tool in PATH or in the sbin folders.
func Look(tool string) (string, error) {
	if p, err := exec.LookPath(tool); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/local/sbin/", "/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + tool); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: not found in PATH", tool)
}

// Run starts the command and waits. When ctx ends the process group gets
// SIGTERM, and SIGKILL when the command has ended or ten seconds are over.
func Run(ctx context.Context, c Cmd) error {
	path, err := Look(c.Name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...) // #nosec G204 -- the one place that starts tools; callers pass argv, never a shell line
	cmd.Dir, cmd.Stdin, cmd.Stdout = c.Dir, c.Stdin, c.Stdout
	cmd.Env = append(baseEnv(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	tail := &tailBuffer{max: 4096}
	cmd.Stderr = tail
	if c.Stderr != nil {
		var both sync.Mutex // the two may be one writer
		cmd.Stderr = io.MultiWriter(locked{&both, c.Stderr}, tail)
		if _, file := c.Stdout.(*os.File); c.Stdout != nil && !file {
			cmd.Stdout = locked{&both, c.Stdout}
		}
	}
	err = c.timed(cmd)
	if err != nil {
		if ctx.Err() != nil {
			if cmd.Process != nil { // what the command started and SIGTERM did not end
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
			return fmt.Errorf("%s: %w", c.Name, ctx.Err())
		}
		if c.Quiet {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		return fmt.Errorf("%s: %w%s", c.Name, err, tail.suffix())
	}
	return nil
}

// timed runs cmd and says what it used.
func (c Cmd) timed(cmd *exec.Cmd) error {
	start := repro.Now()
	err := cmd.Run()
	if c.Used != nil && cmd.ProcessState != nil {
		*c.Used = Usage{Wall: repro.Now().Sub(start), CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			c.Used.Peak = r.Maxrss
			if runtime.GOOS == "linux" {
				c.Used.Peak <<= 10 // getrusage(2): KiB; macOS says bytes
			}
		}
	}
	return err
}

// Output runs the command and returns its standard output.
func Output(ctx context.Context, c Cmd) ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := Run(ctx, c)
	return out.Bytes(), err
}

func baseEnv() []string {
	env := []string{"LC_ALL=C.UTF-8", "TZ=UTC"}
	for _, key := range []string{"PATH", "HOME", "TMPDIR", "USER", "XDG_CACHE_HOME", "GOPATH", "GOCACHE", "GOMODCACHE",
		"GOPROXY", "GONOSUMDB", "GOSUMDB", "GOPRIVATE", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(key); ok {
			if key == "PATH" {
				v += ":/usr/local/sbin:/usr/sbin:/sbin"
			}
			env = append(env, key+"="+v)
		}
	}
	return env
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

type tailBuffer struct {
	max int
	buf []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > t.max {
		t.buf = t.buf[len(t.buf)-t.max:]
	}
	return len(p), nil
}

func (t *tailBuffer) suffix() string {
	s := strings.TrimSpace(string(t.buf))
	if s == "" {
		return ""
	}
	return ": " + s
}

// IsMissingTool says whether err is about a tool that is not installed.
func IsMissingTool(err error) bool {
	var missing *MissingToolError
	return errors.As(err, &missing)
}
