package main

import (
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/report"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		took       time.Duration
		done, left int64
		unit, want string
	}{
		{time.Second, 10, 90, "B", ""}, // too early to tell
		{10 * time.Second, 0, 90, "B", ""},
		{10 * time.Second, 50_000_000, 100_000_000, "B", ", 5.0 MB/s, 20s left"},
		{10 * time.Second, 50_000_000, -50_000_000, "B", ", 5.0 MB/s"}, // the total is not known
		{30 * time.Second, 300, 1200, "packages", ", 2m0s left"},
		{30 * time.Second, 300, 0, "packages", ""},
	} {
		if got := pace(c.took, c.done, c.left, c.unit); got != c.want {
			t.Errorf("%v, %d done, %d left: %q, want %q", c.took, c.done, c.left, got, c.want)
		}
	}
}

// TestProgress wants one moving line on a terminal, and whole lines elsewhere.
func TestProgress(t *testing.T) {
	for live, want := range map[bool]string{
		false: "  packages: 1.0 of 4.0 MB (25%)\n  packages: 2.0 of 4.0 MB (50%)\ndone a\\u0085b\\n\n",
		true:  "\r  packages: 1.0 of 4.0 MB (25%)\r  packages: 2.0 of 4.0 MB (50%)\r" + strings.Repeat(" ", 31) + "\rdone a\\u0085b\\n\n",
	} {
		var b strings.Builder
		p := newProgress(&b)
		p.live, p.every = live, 0
		var r report.Reporter = p
		r.Progress("packages", 1e6, 4e6, "B")
		r.Progress("packages", 2e6, 4e6, "B")
		r.Note("done %s", "a\u0085b\n")
		if b.String() != want {
			t.Errorf("live %v: %q, want %q", live, b.String(), want)
		}
	}
}
