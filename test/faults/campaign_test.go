package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/test/kit"
)

var (
	cuts   = flag.Int("cuts", 0, "how often the campaign cuts each kind of first boot (0: no campaign)")
	budget = flag.Duration("budget", 0, "begin no round after that long (0: go on until all are done)")
	pace   = flag.Float64("pace", 0.5, "seconds that emulated machines see pass in one of the host's")
)

// kinds are the campaign's, in the order of the page: the machine whose first boot is cut.
var kinds = []struct{ name, machine string }{{"init", "master"}, {"worker join", "worker"}, {"control-plane join", "second"}}

// TestCampaign cuts first boots, each time at another moment: in even rounds at any
// second, in odd ones as each step begins. The power goes again and again, six to fourteen
// times, while the machine mends what the last cut left. Every other pair of rounds goes
// on from a disk made of the recorded writes, up to the last flush. What the record has
// is not done again.
func TestCampaign(t *testing.T) {
	if *cuts == 0 {
		t.Skip("a campaign of hours: make faults")
	}
	from, done, built := time.Now(), read(t), commit(t)
	s := newSite(t)
	s.Slow(t, *pace)
	s.clocks.on.Store(true)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			have := map[int]int{} // rounds that held → cuts
			for _, y := range done {
				if y.Kind == k.name && y.Held {
					have[y.Round] = len(y.Moments)
				}
			}
			alone := k.machine == "master"
			for round, cut := 0, 0; cut < *cuts; round++ {
				if n := have[round]; n > 0 {
					cut += n
					continue
				}
				if *budget > 0 && time.Since(from) > *budget {
					t.Skipf("the time is over after %d cuts: round %d and what follows are not done", cut, round)
				}
				if !alone {
					s.needMaster(t)
				}
				y := s.round(t, k.name, k.machine, round, built)
				note(t, y)
				cut += len(y.Moments)
				if !y.Held {
					t.Errorf("round %d, %s: %s", round, strings.Join(y.Moments, ", "), y.Why)
				}
				if len(y.Moments) == 0 { // nor would the next one come so far
					t.FailNow()
				}
			}
		})
	}
}

// needMaster brings a first master up that joins can go to, once.
func (s *site) needMaster(t *testing.T) {
	t.Helper()
	if s.settled != nil {
		return
	}
	s.scrap(t, "master")
	from := s.Now()
	master := s.boot(t, "master", nil)
	kit.Must(t, s.ready(t, master, from))
	s.settled = master
}

// round is one first boot, cut six to fourteen times, and what comes of it; afterwards the
// machine is gone.
func (s *site) round(t *testing.T, kind, name string, n int, built string) (y try) {
	t.Helper()
	r := rand.New(rand.NewSource(int64(n)*1000 + int64(len(kind)))) // #nosec G404 -- chance, not secrecy
	y = try{Kind: kind, Round: n, Replay: n/2%2 == 1, Commit: built, Pace: *pace, Date: time.Now().Format(time.DateOnly), Machine: computer()}
	var how func(*boottest.Node)
	writes := filepath.Join(s.Dir, "writes")
	if y.Replay {
		how = recorded(writes)
	}
	s.scrap(t, name)
	moments := beginnings(name)
	if n%2 == 0 {
		moments = anyMoments(r, name, 10+r.Intn(5))
	}
	var m *boottest.Machine
	var err error
	for cut, at := range moments {
		m = s.boot(t, name, how)
		if err = s.strike(t, m, at); err != nil {
			break
		}
		y.Moments = append(y.Moments, at.String())
		if cut > 0 {
			continue
		}
		if how = nil; y.Replay {
			var image string
			image, y.Points = s.relive(t, name, writes, 10, r)
			how = func(n *boottest.Node) { n.Image = image }
		}
	}
	if err == nil {
		from := time.Now()
		m, err = s.revive(t, name, how)
		y.Seconds = int(time.Since(from).Seconds())
	}
	if err == nil && name == "second" {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		err = s.api.Until(ctx, func(ctx context.Context) error { return s.members(ctx, firstIP, joinIP) })
	}
	if y.Held = err == nil; err != nil {
		t.Log(err)
		y.Why, _, _ = strings.Cut(err.Error(), "\n")
		s.giveUp(t, m, fmt.Sprintf("%s-%d", strings.ReplaceAll(kind, " ", "-"), n))
		return y
	}
	s.dismiss(t, m)
	return y
}

// giveUp keeps the logs of a machine that does not come back, and of the first master,
// beside the temporary files, and ends both: the next round has another cluster.
func (s *site) giveUp(t *testing.T, m *boottest.Machine, what string) {
	t.Helper()
	all := []*boottest.Machine{m}
	if s.settled != nil {
		all = append(all, s.settled)
	}
	s.settled = nil
	kit.Keep(t, "faults-"+what, all...)
	for _, m := range all {
		kit.Must(t, m.Kill())
	}
}

// dismiss takes a machine out of the cluster, and off.
func (s *site) dismiss(t *testing.T, m *boottest.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	name, err := m.Sh(ctx, "cat /proc/sys/kernel/hostname")
	if err != nil || m.Name == "master" { // its cluster goes with it
		kit.Must(t, m.Kill())
		return
	}
	if m.Name == "second" {
		kit.Must(t, s.api.Until(ctx, s.leave))
	}
	kit.Must(t, m.Kill())
	kit.Must(t, s.api.Until(ctx, func(ctx context.Context) error { return s.api.Delete(ctx, "/api/v1/nodes/"+name) }))
	kit.Must(t, s.api.Until(ctx, func(ctx context.Context) error { return s.members(ctx, firstIP) }))
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
