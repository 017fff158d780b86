package boottest

import (
	"context"
	"time"

	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// Check is a command that a node must answer with exit code 0.
type Check struct{ Name, Command string }

// Result is what a check found.
type Result struct {
	Check
	OK     bool
	Output string // both streams
	Err    error  // the command could not be run: the machine has ended, or time was over
	Took   time.Duration
}

// runner is a guest that commands can be run in.
type runner interface {
	Run(ctx context.Context, script string) (qemu.Result, error)
}

var _ runner = (*Machine)(nil)

// checkTime bounds one check, so that one that hangs costs itself alone.
const checkTime = 2 * time.Minute

// RunChecks runs every check in the guest, in order, and returns a result for
// each of them; a check that fails does not stop the others.
func RunChecks(ctx context.Context, guest runner, checks []Check) []Result {
	var out []Result
	for _, c := range checks {
		began := repro.Now()
		limited, cancel := context.WithTimeout(ctx, checkTime)
		r, err := guest.Run(limited, c.Command)
		cancel()
		out = append(out, Result{Check: c, OK: err == nil && r.Code == 0, Output: r.Stdout + r.Stderr, Err: err, Took: repro.Now().Sub(began)})
	}
	return out
}
