package qemu

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/imgbuild/imgbuild/internal/run"
)

// Emulated says whether machines of an architecture have an emulated processor here.
func Emulated(ctx context.Context, arch string) (bool, error) {
	b, err := boardOf(arch)
	if err != nil {
		return false, err
	}
	a, err := accelerator(ctx, b)
	return a == tcg, err
}

// paced is the environment in which QEMU sees pace seconds pass in one of the host's, and so do
// the timers of its machine, its timestamp counter measured against them, and all that waits
// in it. Who has a quarter of the seconds has four times the processor: what programs
// allow each other to take, and do again each second, is meant for real ones.
func paced(pace float64) ([]string, error) {
	found, err := filepath.Glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
	if err != nil || len(found) == 0 {
		return nil, &run.MissingToolError{Tool: "libfaketime", Package: "libfaketime"}
	}
	if pace <= 0 || pace > 1 {
		return nil, fmt.Errorf("a pace of %g: want more than 0, and at most 1", pace)
	}
	return []string{"LD_PRELOAD=" + found[0], "FAKETIME=+0 x" + strconv.FormatFloat(pace, 'f', -1, 64), "FAKETIME_DISABLE_SHM=1"}, nil
}
