package faults

import (
	"context"
	"errors"
	"flag"
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
			}
		})
	}
}

// needMaster brings a first master up that joins can go to, once.
func (s *site) needMaster(t *testing.T) {
	t.Helper()
	if s.settled {
		return
	}
	s.scrap(t, "master")
	from := s.Now()
	kit.Must(t, s.ready(t, s.boot(t, "master", nil), from))
	s.settled = true
}

// round is one first boot, cut six to ten times, and what comes of it; afterwards the
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
	for cut, at := range moments {
		s.strike(t, s.boot(t, name, how), at)
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
