package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// record is what was counted, a line for each round, of all runs of the campaign; page
// is made of it, and so is the part of the README between two marks.
const (
	record, page, readme = "../../docs/faults.jsonl", "../../docs/faults.md", "../../README.md"
	begin, end           = "<!-- faults -->\n", "<!-- /faults -->\n"
)

// try is one line of the record.
type try struct {
	Kind    string   `json:"kind"`
	Round   int      `json:"round"`
	Moments []string `json:"moments"` // of each cut
	Replay  bool     `json:"replay"`  // after the first: of the writes up to a flush, and some of what came after it; not the killed machine's own disk
	Points  int      `json:"points"`  // flushes more at which the disk was looked at
	Held    bool     `json:"held"`
	Why     string   `json:"why,omitempty"`
	Seconds int      `json:"seconds"` // from power to Ready, after the last cut
	Pace    float64  `json:"pace"`    // seconds that the machine saw pass in one of the host's
	Commit  string   `json:"commit"`
	Date    string   `json:"date"`
	Machine string   `json:"machine"`
}

func read(t *testing.T) (out []try) {
	t.Helper()
	data, err := os.ReadFile(record)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	kit.Must(t, err)
	d := json.NewDecoder(bytes.NewReader(data))
	for d.More() {
		var y try
		kit.Must(t, d.Decode(&y))
		out = append(out, y)
	}
	return out
}

// note adds a line to the record.
func note(t *testing.T, y try) {
	t.Helper()
	f, err := os.OpenFile(record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	kit.Must(t, err)
	kit.Must(t, errors.Join(json.NewEncoder(f).Encode(y), f.Sync(), f.Close()))
}

func commit(t *testing.T) string {
	t.Helper()
	out, err := run.Output(t.Context(), run.Cmd{Name: "git", Args: []string{"describe", "--always", "--dirty", "--exclude", "*"}})
	kit.Must(t, err)
	return strings.TrimSpace(string(out))
}

func computer() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(data), "model name\t: ")
	model, _, _ := strings.Cut(rest, "\n")
	return fmt.Sprintf("%d × %s, QEMU without KVM", runtime.NumCPU(), model)
}

// table is what was tried and what held.
func table(all []try) string {
	var b strings.Builder
	b.WriteString("| the power is cut during | cuts | first boots | Ready by themselves, and sound | disks made of recorded writes | disks looked at besides | longest way back to Ready |\n|---|---|---|---|---|---|---|\n")
	for _, k := range kinds {
		var cut, tried, held, replayed, points, longest int
		for _, y := range all {
			if y.Kind != k.name {
				continue
			}
			cut, tried, points, longest = cut+len(y.Moments), tried+1, points+y.Points, max(longest, y.Seconds)
			if y.Held {
				held++
			}
			if y.Replay {
				replayed++
			}
		}
		if tried == 0 {
			fmt.Fprintf(&b, "| %s | not yet | | | | | |\n", k.name)
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d s |\n", k.name, cut, tried, held, replayed, points, longest)
	}
	return b.String()
}

// report is the page.
func report(all []try) []byte {
	var b strings.Builder
	b.WriteString("# Bad first boots, counted\n\n`make faults` wrote this from `faults.jsonl`, where each first boot has a line. One cut in init, one in a\n" +
		"worker's join, and every fault of the second table run in `make test`.\n\n" + table(all) + sound)
	seen := map[string]int{}
	for _, y := range all {
		if !y.Held {
			fmt.Fprintf(&b, "\nOnce it did not hold (%s, commit %s, %s): %s.\n", y.Kind, y.Commit, y.Moments[len(y.Moments)-1], y.Why)
		}
		seen[fmt.Sprintf("%s, commit %s, %s, pace %g", y.Date, y.Commit, y.Machine, y.Pace)]++
	}
	if len(seen) > 0 {
		b.WriteString("\nRun on:\n\n")
	}
	for _, line := range slices.Sorted(maps.Keys(seen)) {
		fmt.Fprintf(&b, "- %s: %d first boots\n", line, seen[line])
	}
	return []byte(b.String())
}

// sound says what the first table means, and what is tried besides.
const sound = `
A first boot is cut up to fourteen times, again while it mends what the last cut left. Half of the cuts come at a random
second, half as a step of the first boot begins. A cut is ` + "`kill -9`" + ` of QEMU: what
the guest had not written is lost. A disk made of recorded writes has everything up to the last flush, and of
what came after it some writes and not others. A disk that is looked at is judged by e2fsck and by the agent's record.
Emulated machines can be shown fewer seconds than pass on the host, as what programs wait for is meant for real processors:
a pace of 0.25 is one in four. Seconds are the host's.
Sound: the cluster's authority is the one that was given, no file is torn, and etcd has its members and no ghost.

| what is wrong | and then | what comes of it |
|---|---|---|
| no network at first boot | the cable is plugged in | it says so; Ready, without a reboot |
| the clock says 1970, or ten years from now | a time server answers | it waits, says so; Ready |
| the clock is an hour behind | the same | Ready |
| /var is full | space is made | the cause is named; Ready |
| a disk of 20 MB/s | nothing | Ready |
| the endpoint is dead, answers 503, has another CA | it is mended | each is named; the stranger is told nothing; Ready |
| the token has ended, or is unknown; the CA is another cluster's | another seed disk is plugged in | each is named; Ready, without a reboot |
`

// TestPage wants page and README to say what the record says; after a campaign it
// writes them.
func TestPage(t *testing.T) {
	all := read(t)
	old, err := os.ReadFile(readme)
	kit.Must(t, err)
	before, rest, found := bytes.Cut(old, []byte(begin))
	_, after, ended := bytes.Cut(rest, []byte(end))
	if !found || !ended {
		t.Fatalf("%s has no place for the table", readme)
	}
	for file, want := range map[string][]byte{page: report(all), readme: slices.Concat(before, []byte(begin+table(all)+end), after)} {
		if *cuts > 0 {
			kit.Must(t, os.WriteFile(file, want, 0o644))
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what %s says: make faults (%v)", file, record, err)
		}
	}
}
