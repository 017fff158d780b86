package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// progress tells a person on w what happens: on a terminal the last line moves,
// elsewhere there are plain lines, at most one in ten seconds for a running step.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	live  bool
	every time.Duration
	last  time.Time
	width int
	steps map[string]mark
}

// mark is where a step was when it was heard of first: its rate is measured from there.
type mark struct {
	when time.Time
	done int64
}

var _ report.Reporter = (*progress)(nil)

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, every: 10 * time.Second, steps: map[string]mark{}}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) { // #nosec G115 -- a file descriptor fits
		p.live, p.every = true, 200*time.Millisecond
	}
	return p
}

// Stage implements report.Reporter.
func (p *progress) Stage(name string) func() {
	begin := repro.Now()
	p.line("%s ...", name)
	return func() { p.line("%s: %s", name, round(repro.Now().Sub(begin))) }
}

// Note implements report.Reporter.
func (p *progress) Note(format string, args ...any) { p.line(format, args...) }

// Progress implements report.Reporter.
func (p *progress) Progress(step string, done, total int64, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := repro.Now()
	begin, known := p.steps[step]
	if !known || done < begin.done {
		begin = mark{now, done}
		p.steps[step] = begin
	}
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	text := fmt.Sprintf("  %s: %s", step, amount(done, unit))
	if total > 0 {
		text = fmt.Sprintf("  %s: %s of %s (%d%%)", step, strings.Fields(amount(done, unit))[0], amount(total, unit), done*100/total)
	}
	text += pace(now.Sub(begin.when), done-begin.done, total-done, unit)
	if !p.live {
		fmt.Fprintln(p.w, text)
		return
	}
	fmt.Fprintf(p.w, "\r%s%s", text, strings.Repeat(" ", max(0, p.width-len(text))))
	p.width = len(text)
}

func (p *progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
	fmt.Fprintln(p.w, report.Line(fmt.Sprintf(format, args...)))
}

// pace is the rate so far and the time that is left at that rate, once there is
// enough to judge by.
func pace(took time.Duration, done, left int64, unit string) (text string) {
	if took < 2*time.Second || done <= 0 {
		return ""
	}
	rate := float64(done) / took.Seconds()
	if unit == "B" {
		text = fmt.Sprintf(", %s/s", amount(int64(rate), unit))
	}
	if left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

func amount(n int64, unit string) string {
	if unit != "B" {
		return fmt.Sprintf("%d %s", n, unit)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
