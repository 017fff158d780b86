package fault

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestKindOf(t *testing.T) {
	inner := New(Spec, "role %q: %w", "x", context.Canceled)
	for name, c := range map[string]struct {
		err  error
		want Kind
		code int
	}{
		"none":           {errors.New("x"), Internal, 1},
		"nil":            {nil, Internal, 1},
		"new":            {inner, Spec, 3},
		"wrapped":        {fmt.Errorf("reading: %w", inner), Spec, 3},
		"innermost wins": {Wrap(Verify, fmt.Errorf("checking: %w", New(Fetch, "gone"))), Fetch, 6},
		"joined":         {errors.Join(errors.New("x"), New(Tool, "no qemu")), Tool, 5},
		"usage":          {New(Usage, "x"), Usage, 2},
		"lock":           {New(Lock, "x"), Lock, 4},
		"boot":           {New(Boot, "x"), Boot, 8},
		"stopped":        {Wrap(Stopped, context.Canceled), Stopped, 130},
	} {
		t.Run(name, func(t *testing.T) {
			if got := KindOf(c.err); got != c.want || got.ExitCode() != c.code {
				t.Errorf("%s, exit code %d; want %s, %d", got, got.ExitCode(), c.want, c.code)
			}
		})
	}
	if inner.Error() != `role "x": context canceled` || !errors.Is(inner, context.Canceled) {
		t.Errorf("%v", inner)
	}
	if Wrap(Spec, nil) != nil {
		t.Error("nil did not stay nil")
	}
}

// TestExitCodes: every kind has a code of its own, none is success.
func TestExitCodes(t *testing.T) {
	seen := map[int]Kind{}
	for _, c := range Codes {
		if other, ok := seen[c.Code]; ok || c.Code <= 0 || c.Code > 255 || c.What == "" {
			t.Errorf("%s has exit code %d, as has %q", c.Kind, c.Code, other)
		}
		seen[c.Code] = c.Kind
	}
}
