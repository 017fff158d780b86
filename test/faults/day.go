package faults

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/test/kit"
)

var seed = flag.Int64("seed", 1, "of what is left to chance (0: another one each time)")

func chance(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	if from == 0 {
		from = repro.Now().UnixNano()
	}
	t.Logf("-seed %d", from)
	return rand.New(rand.NewSource(from)) // #nosec G404 -- chance, not secrecy
}

// BadDay makes a cluster of two machines on one bad day: every fault once, each mended,
// and both are Ready members in the end. Cuts while a master joins are the campaign's.
// The identity at a site has the Endpoint; images, of which the master's is raw, have the
// TimeServer; each may change a machine before it is booted. A stamped worker keeps what
// it was stamped with, but for the token, which ends. The master's disk is over another
// image afterwards: images says so.
func BadDay(t *testing.T, at *kit.Site, images map[string]string, each func(*boottest.Node), stamped bool) (master, worker *boottest.Machine) {
	t.Helper()
	d := &day{on(t, at, images), chance(t)}
	d.each = each
	defer func() {
		if t.Failed() {
			kit.Keep(t, "bad-day", slices.Collect(maps.Values(d.last))...)
		}
	}()
	master = d.badMaster(t)
	worker = d.badMachine(t, stamped)
	d.badEndpoints(t, worker)
	d.badTokens(t, worker)
	kit.Must(t, d.strike(t, worker, inJoin(d.chance, "worker")))
	worker, err := d.revive(t, "worker", func(n *boottest.Node) {
		n.Clock = at.Now().Add(-time.Hour)
		if stamped { // with a token that has ended
			n.Via = boottest.Seed
		}
	})
	kit.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	kit.Must(t, d.api.Until(ctx, func(ctx context.Context) error { return d.members(ctx, firstIP) }))
	return master, worker
}

// day is the site of BadDay.
type day struct {
	*site
	chance *rand.Rand
}

// tenYears is more than an authority lives.
const tenYears = 10*365*24*time.Hour + 96*time.Hour

// badMaster boots a master whose clock is ten years ahead, and cuts its power. It goes on
// from an image made of what it wrote, alone: emulated on few processors, a machine that
// waits would starve it.
func (d *day) badMaster(t *testing.T) *boottest.Machine {
	t.Helper()
	writes := filepath.Join(d.Dir, "master.writes")
	master := d.boot(t, "master", func(n *boottest.Node) { n.Clock, n.WriteLog = d.Now().Add(tenYears), writes })
	d.says(t, master, "clock ten years ahead", "the clock said .* the cluster's CA ended at")
	d.clocks.on.Store(true)
	kit.Must(t, d.strike(t, master, anyMoments(d.chance, "master", 1)[0]))
	d.images["master"], _ = d.relive(t, "master", writes, 5, d.chance)
	master, err := d.revive(t, "master", nil)
	kit.Must(t, err)
	d.clocks.on.Store(false)
	return master
}

// badMachine boots a worker of 1970 whose network is unplugged, its disk slow and /var
// full. In the end it waits for the endpoint, which is dead.
func (d *day) badMachine(t *testing.T, stamped bool) *boottest.Machine {
	t.Helper()
	d.balancer.treat(workerIP, dead)
	worker := d.boot(t, "worker", func(n *boottest.Node) {
		if n.Clock, n.Rate = time.Unix(0, 0), 20<<20; stamped {
			n.Config = nil
		}
	})
	kit.Must(t, worker.Link(t.Context(), false))
	d.says(t, worker, "no network", "this machine has no address yet")
	d.fill(t, worker)
	kit.Must(t, worker.Link(t.Context(), true))
	d.says(t, worker, "clock of 1970", "the clock said .* the cluster's CA begins at")
	d.clocks.on.Store(true)
	d.says(t, worker, "/var is full", "no space left on device")
	d.sh(t, worker, "rm -r /var/filler")
	return worker
}

// fill leaves no space on /var.
func (d *day) fill(t *testing.T, m *boottest.Machine) {
	t.Helper()
	d.sh(t, m, "mkdir /var/filler; i=0; while fallocate -l 64M /var/filler/$i 2>/dev/null; do i=$((i + 1)); done; rm /var/filler/$i && test $i -gt 10")
}

// badEndpoints has the worker find the endpoint dead, busy, and somebody else's.
func (d *day) badEndpoints(t *testing.T, m *boottest.Machine) {
	t.Helper()
	d.says(t, m, "endpoint dead", "does not answer")
	d.balancer.treat(workerIP, busy)
	d.says(t, m, "endpoint answers 503", "answers 503")
	d.balancer.treat(workerIP, stranger)
	d.says(t, m, "endpoint has another CA", "a certificate that this cluster's CA did not sign")
	d.balancer.mu.Lock()
	defer d.balancer.mu.Unlock()
	if d.balancer.told > 0 {
		t.Errorf("the worker told the stranger %d bytes", d.balancer.told)
	}
}

// badTokens gives the worker, which waits, one bad node config after the other, and in
// the end a good one.
func (d *day) badTokens(t *testing.T, m *boottest.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	over := base64.StdEncoding.EncodeToString([]byte("2020-01-01T00:00:00Z"))
	kit.Must(t, d.api.Until(ctx, func(ctx context.Context) error {
		return d.api.Patch(ctx, "/api/v1/namespaces/kube-system/secrets/bootstrap-token-"+d.id.TokenID(), map[string]any{"data": map[string]string{"expiration": over}})
	}))
	kit.Must(t, d.api.Until(ctx, d.unsigned))
	d.balancer.treat(workerIP, through)
	d.says(t, m, "token expired", "does not know the token")
	other, err := os.ReadFile(filepath.Join(d.folder+"-other", configs["worker"]))
	kit.Must(t, err)
	kit.Must(t, m.Give(ctx, other))
	d.says(t, m, "CA hash of another cluster", "a certificate that this cluster's CA did not sign")
	kit.Must(t, m.Give(ctx, regexp.MustCompile(`(?m)^token: .*$`).ReplaceAll(d.Config(t, configs["worker"]), []byte("token: abcdef.0123456789abcdef"))))
	d.says(t, m, "token unknown", "does not know the token")
	secret := filepath.Join(d.Dir, "secret.json")
	_, err = d.Imgbuild(ctx, "cluster", "token", d.folder, "-o", secret)
	kit.Must(t, err)
	data, err := os.ReadFile(secret)
	kit.Must(t, err)
	kit.Must(t, d.api.Post(ctx, "/api/v1/namespaces/kube-system/secrets", json.RawMessage(data)))
	kit.Must(t, m.Give(ctx, d.Config(t, configs["worker"])))
}

// unsigned wants cluster-info to be signed by no token any more.
func (d *day) unsigned(ctx context.Context) error {
	var info struct{ Data map[string]string }
	err := d.api.Get(ctx, "/api/v1/namespaces/kube-public/configmaps/cluster-info", &info)
	if _, ok := info.Data["jws-kubeconfig-"+d.id.TokenID()]; ok || err != nil {
		return errors.Join(err, errors.New("cluster-info is still signed by the token that is over"))
	}
	return nil
}

func (s *site) sh(t *testing.T, m *boottest.Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := m.Sh(ctx, script)
	if err != nil {
		t.Fatal(fmt.Errorf("%w\n%s", err, strings.TrimSpace(out)))
	}
	return out
}
