package faults

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/test/kit"
)

// steps are where first boots are cut, and about how long each lasts, seconds.
var steps = map[string]map[string]int{
	"master": {"container images": 1, "clean slate": 2, "keys and certificates": 1, "preflight": 10, "control plane": 100, "cluster": 30, "pod network": 8, "commit": 3},
	"second": {"container images": 1, "waiting for the API": 2, "masters before it": 10, "etcd members": 2, "keys and certificates": 1, "preflight": 10, "join": 100, "kubeconfig": 1, "commit": 3},
	"worker": {"container images": 1, "waiting for the API": 2, "preflight": 6, "join": 30, "commit": 3},
}

// moment is when the power goes: that long after a step has begun.
type moment struct {
	step  string
	after time.Duration
}

func (m moment) String() string {
	return fmt.Sprintf("%.1f s after %q began", m.after.Seconds(), m.step)
}

// anyMoment picks one at random, each second of the first boot as likely as another.
func anyMoment(r *rand.Rand, name string) moment {
	var seconds []moment
	for _, step := range slices.Sorted(maps.Keys(steps[name])) {
		for i := range steps[name][step] {
			seconds = append(seconds, moment{step, time.Duration(i) * time.Second})
		}
	}
	m := seconds[r.Intn(len(seconds))]
	m.after += time.Duration(r.Intn(1000)) * time.Millisecond
	return m
}

// inJoin picks a moment of kubeadm's join.
func inJoin(r *rand.Rand, name string) moment {
	return moment{"join", time.Duration(r.Intn(1000*steps[name]["join"])) * time.Millisecond}
}

const member = "is a member of its cluster"

// strike pulls the plug of a machine at a moment of its first boot, or when it is a
// member where that comes first: a boot that goes on after a cut leaves steps out.
func (s *site) strike(t *testing.T, m *boottest.Machine, at moment) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("imgbuild: (master|worker): "+regexp.QuoteMeta(at.step)+`\r?\n|`+member)); err != nil {
		t.Fatalf("%s never comes to %q: %v\n%s", m.Name, at.step, err, m.Tail(40))
	}
	ended, stop := context.WithTimeout(ctx, at.after)
	defer stop()
	_, _ = m.WaitConsole(ended, regexp.MustCompile(member))
	kit.Must(t, m.Kill())
	s.Told(t, "%s: the power is cut %s; the last that it said: %s", m.Name, at, lastSaid(m))
}

var said = regexp.MustCompile(`imgbuild: .*`)

// lastSaid is the last line of the agent on the console.
func lastSaid(m *boottest.Machine) string {
	all := said.FindAllString(m.Tail(1000), -1)
	if len(all) == 0 {
		return "nothing"
	}
	return all[len(all)-1]
}

// revive boots a machine whose power was cut, and wants it to become a Ready member
// by itself, with nothing torn.
func (s *site) revive(t *testing.T, name string, how func(*boottest.Node)) (*boottest.Machine, error) {
	t.Helper()
	from, since := repro.Now(), s.Now()
	m := s.boot(t, name, how)
	if err := s.ready(t, m, since); err != nil {
		return m, err
	}
	s.Told(t, "%s: Ready %.0f s after the power is back", name, repro.Now().Sub(from).Seconds())
	return m, s.whole(t.Context(), m)
}

// dir is a machine's folder.
func (s *site) dir(name string) string { return filepath.Join(s.Dir, "machines", name) }

// scrap removes a machine's disk: the next boot is a new machine's first.
func (s *site) scrap(t *testing.T, name string) {
	t.Helper()
	kit.Must(t, os.RemoveAll(s.dir(name)))
}
