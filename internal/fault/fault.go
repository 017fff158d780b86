// Package fault sorts errors into the few categories that a caller can act on.
// The category decides the exit code, in one place: Kind.ExitCode.
package fault

import (
	"errors"
	"fmt"
)

// Kind is what went wrong, seen from the one who has to mend it.
type Kind string

// The kinds. Anything that carries none is Internal.
const (
	Internal Kind = "internal" // a failure of a stage, a tool or this program
	Usage    Kind = "usage"    // the command line
	Spec     Kind = "spec"     // the node's description or the node config
	Lock     Kind = "lock"     // the lock is missing, stale or damaged
	Tool     Kind = "tool"     // a tool is missing on this host
	Fetch    Kind = "fetch"    // an input cannot be had, or is not what was pinned
	Verify   Kind = "verify"   // an image is not what it should be
	Boot     Kind = "boot"     // a booted node did not do what it should
	Stopped  Kind = "stopped"  // interrupted
)

var codes = map[Kind]int{Internal: 1, Usage: 2, Spec: 3, Lock: 4, Tool: 5, Fetch: 6, Verify: 7, Boot: 8, Stopped: 130}

// ExitCode is the process's exit code for the kind.
func (k Kind) ExitCode() int { return codes[k] }

// Error is an error with its kind.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the error inside.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind; format is as for fmt.Errorf.
func New(k Kind, format string, args ...any) error { return &Error{k, fmt.Errorf(format, args...)} }

// Wrap gives err the kind; nil stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{k, err}
}

// KindOf is the innermost kind that err carries, or Internal.
func KindOf(err error) Kind {
	kind := Internal
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		kind = e.Kind
	}
	return kind
}
