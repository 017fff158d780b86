package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/run"
)

var (
	rounds = flag.Int("rounds", 0, "how often the campaign cuts each kind of first boot (0: no campaign)")
	budget = flag.Duration("budget", 0, "begin no round after that long (0: go on until all are done)")
)

// record is what was counted, a line for each round, of all runs of the campaign;
// page is made of it.
const record, page = "../../docs/faults.jsonl", "../../docs/faults.md"

// kinds are the campaign's, in the order of the page: the machine whose first boot is cut.
var kinds = []struct{ name, machine, judge string }{
	{"init", "first", "Ready by itself; the same authority, published before or not; no torn file"},
	{"worker join", "worker", "Ready by itself; no torn file"},
	{"control-plane join", "second", "Ready by itself; etcd has both members and no ghost; no torn file"},
}

// try is one line of the record.
type try struct {
	Kind    string `json:"kind"`
	Round   int    `json:"round"`
	Moment  string `json:"moment"`
	Replay  bool   `json:"replay"` // of the writes up to a flush, and some of what came after it; not the killed machine's own disk
	Points  int    `json:"points"` // flushes more at which the disk was looked at
	Held    bool   `json:"held"`
	Why     string `json:"why,omitempty"`
	Seconds int    `json:"seconds"` // from power to Ready, after the cut
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Machine string `json:"machine"`
}

// TestCampaign cuts first boots, each round at another moment: in even rounds at any
// second, in odd ones as a step begins. Every other pair of rounds boots a disk made
// of the recorded writes, up to the last flush. What the record has is not done again.
func TestCampaign(t *testing.T) {
	if *rounds == 0 {
		t.Skip("a campaign of hours: make faults")
	}
	from, done := time.Now(), read(t)
	s := newSite(t)
	s.clocks.on.Store(true)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			alone := k.machine == "first"
			for round := range *rounds {
				if slices.ContainsFunc(done, func(y try) bool { return y.Kind == k.name && y.Round == round && y.Held }) {
					continue
				}
				if *budget > 0 && time.Since(from) > *budget {
					t.Skipf("the time is over: round %d and what follows are not done", round)
				}
				if !alone {
					s.needFirst(t)
				}
				y := s.round(t, k.name, k.machine, round)
				note(t, y)
				if !y.Held {
					t.Errorf("round %d, %s: %s", round, y.Moment, y.Why)
				}
			}
		})
	}
}

// needFirst brings a first master up that joins can go to, once.
func (s *site) needFirst(t *testing.T) {
	t.Helper()
	if s.settled {
		return
	}
	s.scrap(t, "first")
	from := time.Now()
	must(t, s.ready(t, s.boot(t, "first", nil), from))
	s.settled = true
}

// round is one cut and what comes of it; afterwards the machine is gone.
func (s *site) round(t *testing.T, kind, name string, n int) (y try) {
	t.Helper()
	r := rand.New(rand.NewSource(int64(n)*1000 + int64(len(kind)))) // #nosec G404 -- chance, not secrecy
	at := anyMoment(r, name)
	if n%2 == 1 {
		all := slices.Sorted(maps.Keys(steps[name]))
		at = moment{all[n/2%len(all)], 0}
	}
	y = try{Kind: kind, Round: n, Moment: at.String(), Replay: n/2%2 == 1, Commit: commit(t), Date: time.Now().Format(time.DateOnly), Machine: computer()}
	var how func(*boottest.Node)
	writes := filepath.Join(s.kit.Dir, "writes")
	if y.Replay {
		how = recorded(writes)
	}
	s.scrap(t, name)
	m := s.boot(t, name, how)
	s.strike(t, m, at)
	how = nil
	if y.Replay {
		var image string
		image, y.Points = s.relive(t, name, writes, 10, r)
		how = func(n *boottest.Node) { n.Image = image }
	}
	from := time.Now()
	m, err := s.revive(t, name, how)
	y.Seconds = int(time.Since(from).Seconds())
	if err == nil && name == "second" {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		err = s.api.Until(ctx, func(ctx context.Context) error { return s.members(ctx, firstIP, joinIP) })
	}
	if y.Held = err == nil; err != nil {
		y.Why = err.Error()
	}
	s.dismiss(t, m)
	return y
}

// dismiss takes a machine out of the cluster, and off.
func (s *site) dismiss(t *testing.T, m *boottest.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	name, err := m.Sh(ctx, "cat /proc/sys/kernel/hostname")
	if err != nil || m.Name == "first" { // its cluster goes with it
		must(t, m.Kill())
		return
	}
	if m.Name == "second" {
		must(t, s.api.Until(ctx, s.leave))
	}
	must(t, m.Kill())
	must(t, s.api.Until(ctx, func(ctx context.Context) error { return s.api.Delete(ctx, "/api/v1/nodes/"+name) }))
	must(t, s.api.Until(ctx, func(ctx context.Context) error { return s.members(ctx, firstIP) }))
}

// leave removes the second master from etcd.
func (s *site) leave(ctx context.Context) error {
	members, err := s.etcd.Members(ctx, firstIP)
	for _, m := range members {
		if err == nil && m.At(joinIP) {
			return errors.Join(s.etcd.Remove(ctx, firstIP, m.ID), s.members(ctx, firstIP))
		}
	}
	return err
}

func read(t *testing.T) (out []try) {
	t.Helper()
	data, err := os.ReadFile(record)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	must(t, err)
	d := json.NewDecoder(bytes.NewReader(data))
	for d.More() {
		var y try
		must(t, d.Decode(&y))
		out = append(out, y)
	}
	return out
}

// note adds a line to the record.
func note(t *testing.T, y try) {
	t.Helper()
	f, err := os.OpenFile(record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(t, err)
	must(t, errors.Join(json.NewEncoder(f).Encode(y), f.Sync(), f.Close()))
}

func commit(t *testing.T) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: "git", Args: []string{"describe", "--always", "--dirty", "--exclude", "*"}})
	must(t, err)
	return strings.TrimSpace(string(out))
}

func computer() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(data), "model name\t: ")
	model, _, _ := strings.Cut(rest, "\n")
	return fmt.Sprintf("%d × %s, QEMU without KVM", runtime.NumCPU(), model)
}

// report is the page: what was tried and what held.
func report(all []try) []byte {
	var b strings.Builder
	b.WriteString("# Bad first boots, counted\n\n`make faults` wrote this from `faults.jsonl`, where each round has a line. One cut of each\n" +
		"kind, and every fault of the second table run in `make test`.\n\n| the power is cut during | tried | held | of these, disks made of recorded writes | disks looked at besides | longest way back to Ready | who says so |\n|---|---|---|---|---|---|---|\n")
	seen := map[string]bool{}
	for _, k := range kinds {
		var tried, held, replayed, points, longest int
		for _, y := range all {
			if y.Kind != k.name {
				continue
			}
			tried, points, longest = tried+1, points+y.Points, max(longest, y.Seconds)
			if y.Held {
				held++
			}
			if y.Replay {
				replayed++
			}
			seen[y.Date+", commit "+y.Commit+", "+y.Machine] = true
		}
		if tried == 0 {
			fmt.Fprintf(&b, "| %s | not yet | | | | | %s |\n", k.name, k.judge)
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d s | %s |\n", k.name, tried, held, replayed, points, longest, k.judge)
	}
	b.WriteString("\nHalf of the cuts come at a random second, half as a step of the first boot begins. A cut is `kill -9` of QEMU: what\n" +
		"the guest had not written is lost. A disk made of recorded writes has everything up to the last flush, and of\nwhat came after it some writes and not others. " +
		"A disk that is looked at is judged by e2fsck and by the agent's record.\n\n")
	b.WriteString(others)
	if len(seen) > 0 {
		b.WriteString("\nRun on:\n\n")
	}
	for _, line := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	return []byte(b.String())
}

// others are the faults of TestFaults, which are no cuts.
const others = `| what is wrong | and then | what comes of it |
|---|---|---|
| no network at first boot | the cable is plugged in | it says so; Ready, without a reboot |
| the clock says 1970, or ten years from now | a time server answers | it waits, says so; Ready |
| the clock is an hour behind | the same | Ready |
| /var is full | space is made | the cause is named; Ready |
| a disk of 20 MB/s | nothing | Ready |
| the endpoint is dead, answers 503, has another CA | it is mended | each is named; the stranger is told nothing; Ready |
| the token has ended, or is unknown; the CA is another cluster's | another seed disk is plugged in | each is named; Ready, without a reboot |
`

// TestPage wants the page to be that of the record; after a campaign it writes it.
func TestPage(t *testing.T) {
	if *rounds > 0 {
		must(t, os.WriteFile(page, report(read(t)), 0o644))
	}
	want, err := os.ReadFile(page)
	must(t, err)
	if !bytes.Equal(want, report(read(t))) {
		t.Errorf("%s is not what %s says: make faults", page, record)
	}
}
