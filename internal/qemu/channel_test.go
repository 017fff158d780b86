//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgbuild/imgbuild/internal/run"
)

// guestOnThisHost runs the guest's script here, on a terminal in place of the
// virtio port, and returns the host's end.
func guestOnThisHost(t *testing.T) *channel {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	fd := int(host.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	raw, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	must(t, err)
	raw.Iflag, raw.Oflag, raw.Lflag = 0, 0, 0 // no echo, no lines, no signals: a plain pipe
	must(t, unix.IoctlSetTermios(fd, unix.TCSETS, raw))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run.Run(ctx, run.Cmd{Name: "bash", Args: []string{"guest.sh", fmt.Sprintf("/dev/pts/%d", number)}, Env: []string{"RUNTIME_DIRECTORY=" + t.TempDir()}})
	}()
	c := newChannel(host)
	t.Cleanup(func() { stop(); <-ended; c.close() })
	return c
}

func TestChannelRunsScripts(t *testing.T) {
	c := guestOnThisHost(t)
	big := strings.Repeat("x", 100_000)
	for script, want := range map[string]Result{
		"true":                                  {},
		"echo out; echo err >&2":                {"out\n", "err\n", 0},
		"printf 'no end of line'":               {"no end of line", "", 0},
		"exit 7":                                {Code: 7},
		"a='two lines'\necho \"$a\"":            {Stdout: "two lines\n"},
		"head -c 100000 /dev/zero | tr '\\0' x": {Stdout: big},
		"read -r x || echo no input":            {Stdout: "no input\n"},
	} {
		got, err := c.run(t.Context(), script)
		if err != nil || got != want {
			t.Errorf("%q: got %.200v, %v", script, got, err)
		}
	}
}

func TestChannelOutlivesAHangingScript(t *testing.T) {
	c := guestOnThisHost(t)
	if _, err := c.run(t.Context(), "true"); err != nil { // the guest is up
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if got, err := c.run(ctx, "sleep 600"); err == nil && got.Code != 124 || err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hanging script: %v, %v", got, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if got, err := c.run(ctx, "echo next"); err != nil || got.Stdout != "next\n" {
		t.Errorf("the next script: %v, %v", got, err)
	}
}

func TestChannelWaitsNoLongerThanItsContext(t *testing.T) {
	c := guestOnThisHost(t)
	first, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.run(first, "sleep 5")
	time.Sleep(50 * time.Millisecond)
	ctx, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if _, err := c.run(ctx, "true"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
