package faults

import (
	"context"
	"fmt"
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

// step is one of the agent's, and about how long it lasts where nothing else runs, seconds.
type step struct {
	name    string
	seconds int
}

// steps are where first boots are cut, in their order.
var steps = map[string][]step{
	"master": {{"clean slate", 8}, {"container images", 1}, {"one cluster", 9}, {"keys and certificates", 1}, {"preflight", 8}, {"virtual address", 1}, {"control plane", 120}, {"only one", 3}, {"cluster", 16}, {"pod network", 10}, {"kubeconfig", 1}, {"commit", 3}},
	"second": {{"clean slate", 8}, {"container images", 1}, {"waiting for the API", 2}, {"masters before it", 10}, {"etcd members", 2}, {"keys and certificates", 1}, {"preflight", 8}, {"join", 100}, {"kubeconfig", 1}, {"commit", 3}},
	"worker": {{"clean slate", 8}, {"container images", 1}, {"waiting for the API", 2}, {"preflight", 6}, {"join", 25}, {"commit", 3}},
}

// moment is when the power goes: that long after a step has begun.
type moment struct {
	step  string
	after time.Duration
}

func (m moment) String() string {
	return fmt.Sprintf("%.1f s after %q began", m.after.Seconds(), m.step)
}

// everyMoment are all seconds of a first boot's steps, in their order.
func everyMoment(name string) (all []moment) {
	for _, step := range steps[name] {
		for i := range step.seconds {
			all = append(all, moment{step.name, time.Duration(i) * time.Second})
		}
	}
	return all
}

// anyMoments picks n at random, in their order, each second of the first boot as likely as
// another.
func anyMoments(r *rand.Rand, name string, n int) (out []moment) {
	all := everyMoment(name)
	for _, i := range slices.Sorted(slices.Values(r.Perm(len(all))[:n])) {
		m := all[i]
		m.after += time.Duration(r.Intn(1000)) * time.Millisecond
		out = append(out, m)
	}
	return out
}

// beginnings are the moments at which steps begin, in their order.
func beginnings(name string) (out []moment) {
	for _, step := range steps[name] {
		out = append(out, moment{step.name, 0})
	}
	return out
}

// inJoin picks a moment of kubeadm's join.
func inJoin(r *rand.Rand, name string) moment {
	i := slices.IndexFunc(steps[name], func(s step) bool { return s.name == "join" })
	return moment{"join", time.Duration(r.Intn(1000*steps[name][i].seconds)) * time.Millisecond}
}

const member = "is a member of its cluster"

// strike pulls the plug of a machine at a moment of its first boot, or when it is a
// member where that comes first: a boot that goes on after a cut leaves steps out.
func (s *site) strike(t *testing.T, m *boottest.Machine, at moment) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := m.WaitConsole(ctx, regexp.MustCompile("imgbuild: (master|worker): "+regexp.QuoteMeta(at.step)+`\r?\n|`+member)); err != nil {
		return fmt.Errorf("%s never comes to %q: %w\n%s", m.Name, at.step, err, m.Tail(40))
	}
	ended, stop := context.WithTimeout(ctx, at.after)
	defer stop()
	_, _ = m.WaitConsole(ended, regexp.MustCompile(member))
	if err := m.Kill(); err != nil {
		return err
	}
	s.Told(t, "%s: the power is cut %s; the last that it said: %s", m.Name, at, lastSaid(m))
	return nil
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
