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
	Internal Kind = "internal"
	Usage    Kind = "usage"
	Spec     Kind = "spec"
	Lock     Kind = "lock"
	Tool     Kind = "tool"
	Fetch    Kind = "fetch"
	Verify   Kind = "verify"
	Boot     Kind = "boot"
	// Of a running cluster.
	Unreachable Kind = "unreachable"
	Trust       Kind = "trust"
	Stopped     Kind = "stopped"
)

// Codes is the one table of the kinds, their exit codes and their meaning.
var Codes = []struct {
	Kind Kind
	Code int
	What string
}{
	{Internal, 1, "a stage, a tool or imgbuild itself failed"},
	{Usage, 2, "the command line is wrong"},
	{Spec, 3, "the node's description or the node config is wrong"},
	{Lock, 4, "the lock is missing, stale or damaged"},
	{Tool, 5, "a tool is missing on this host"},
	{Fetch, 6, "an input cannot be had, or is not what was pinned; a registry does not give or take"},
	{Verify, 7, "an image or a cache entry is not what it should be"},
	{Boot, 8, "a booted node did not do what it should"},
	{Unreachable, 9, "the cluster does not answer, or answers an error"},
	{Trust, 10, "what answers is not this cluster, or this user may not do it there"},
	{Stopped, 130, "interrupted"},
}

// ExitCode is the process's exit code for the kind.
func (k Kind) ExitCode() int {
	for _, c := range Codes {
		if c.Kind == k {
			return c.Code
		}
	}
	return 1
}

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
