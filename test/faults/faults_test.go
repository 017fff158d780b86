package faults

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
)

var seed = flag.Int64("seed", 0, "of what is left to chance (default: another one each time)")

func chance(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	if from == 0 {
		from = time.Now().UnixNano()
	}
	t.Logf("-seed %d", from)
	return rand.New(rand.NewSource(from)) // #nosec G404 -- chance, not secrecy
}

// TestFaults is one bad day of a cluster: every fault once, on three machines.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("boots three machines: left out by -short")
	}
	s, r := newSite(t), chance(t)
	d := &day{site: s, up: make(chan struct{}), first: anyMoment(r, "first"), second: anyMoment(r, "second"), worker: anyMoment(r, "worker"), chance: r}
	d.worker.step = "join" // what comes before is late already, by all the other faults
	t.Run("on", func(t *testing.T) {
		t.Run("first master", d.firstMaster)
		t.Run("worker", d.badWorker)
		t.Run("joining master", d.joiningMaster)
	})
	if t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	must(t, s.api.Until(ctx, func(ctx context.Context) error { return s.members(ctx, firstIP, joinIP) }))
	nodes, err := s.api.List(ctx, "/api/v1/nodes")
	if err != nil || len(nodes) != 3 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
	must(t, s.api.Until(ctx, s.api.PodsReady))
	s.told(t, "three nodes, two members of etcd, every pod Ready")
}

// day is what the machines of TestFaults share.
type day struct {
	*site
	up                    chan struct{} // closed when the first master is a member, or never will be
	alive                 bool          // it is one
	first, second, worker moment        // of their power cuts
	chance                *rand.Rand
}

// tenYears is more than an authority lives.
const tenYears = 10*365*24*time.Hour + 96*time.Hour

// firstMaster begins with a clock ten years ahead; then its power is cut.
func (d *day) firstMaster(t *testing.T) {
	t.Parallel()
	defer close(d.up)
	m := d.boot(t, "first", func(n *boottest.Node) { n.Clock = time.Now().Add(tenYears) })
	d.says(t, m, "clock ten years ahead", "the cluster's CA ended at")
	d.clocks.on.Store(true)
	d.strike(t, m, d.first)
	_, err := d.revive(t, "first", nil)
	must(t, err)
	d.alive = true
}

// wait waits for the first master.
func (d *day) wait(t *testing.T) {
	t.Helper()
	if <-d.up; !d.alive {
		t.Fatal("there is no first master")
	}
}

// badWorker meets all that a worker can meet before it joins, each mended in turn
// while it runs, and then its power is cut.
func (d *day) badWorker(t *testing.T) {
	t.Parallel()
	record := filepath.Join(d.kit.Dir, "worker.writes")
	m := d.boot(t, "worker", func(n *boottest.Node) {
		n.Clock, n.Rate, n.WriteLog = time.Unix(0, 0), 20<<20, record
	})
	must(t, m.Link(t.Context(), false))
	d.says(t, m, "clock of 1970, no network", "the clock says .* the cluster's CA begins at")
	d.sh(t, m, `fallocate -l $(($(stat -fc '%f*%S' /var) - (8 << 20))) /var/filler`)
	d.balancer.treat(workerIP, dead)
	must(t, m.Link(t.Context(), true))
	d.says(t, m, "/var is full", `"cause": .*no space left on device`)
	d.sh(t, m, "rm /var/filler")
	d.says(t, m, "endpoint dead", "does not answer")
	d.balancer.treat(workerIP, busy)
	d.says(t, m, "endpoint answers 503", "answers 503")
	d.balancer.treat(workerIP, stranger)
	d.says(t, m, "endpoint has another CA", "a certificate that this cluster's CA did not sign")
	d.wait(t)
	d.tokens(t, m)
	d.balancer.mu.Lock()
	told := d.balancer.told
	d.balancer.mu.Unlock()
	if told > 0 {
		t.Errorf("the worker told the stranger %d bytes", told)
	}
	d.strike(t, m, d.worker)
	image, _ := d.relive(t, "worker", record, 5, d.chance)
	_, err := d.revive(t, "worker", func(n *boottest.Node) { n.Image, n.Clock = image, time.Now().Add(-time.Hour) })
	must(t, err)
}

// tokens gives the worker, which waits, one bad node config after the other, and in
// the end a good one.
func (d *day) tokens(t *testing.T, m *boottest.Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	over := base64.StdEncoding.EncodeToString([]byte("2020-01-01T00:00:00Z"))
	must(t, d.api.Until(ctx, func(ctx context.Context) error {
		return d.api.Patch(ctx, "/api/v1/namespaces/kube-system/secrets/bootstrap-token-"+d.id.TokenID(), map[string]any{"data": map[string]string{"expiration": over}})
	}))
	must(t, d.api.Until(ctx, d.unsigned))
	d.balancer.treat(workerIP, through)
	d.says(t, m, "token expired", "does not know the token")
	other, err := os.ReadFile(filepath.Join(d.folder+"-other", configs["worker"]))
	must(t, err)
	must(t, m.Give(ctx, other))
	d.says(t, m, "CA hash of another cluster", "a certificate that this cluster's CA did not sign")
	must(t, m.Give(ctx, regexp.MustCompile(`(?m)^token: .*$`).ReplaceAll(d.config(t, configs["worker"]), []byte("token: abcdef.0123456789abcdef"))))
	d.says(t, m, "token unknown", "does not know the token")
	secret := filepath.Join(d.kit.Dir, "secret.json")
	_, err = d.kit.Imgbuild(ctx, "cluster", "token", d.folder, "-o", secret)
	must(t, err)
	data, err := os.ReadFile(secret)
	must(t, err)
	must(t, d.api.Post(ctx, "/api/v1/namespaces/kube-system/secrets", json.RawMessage(data)))
	must(t, m.Give(ctx, d.config(t, configs["worker"])))
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

// joiningMaster has a clock that is an hour behind; then its power is cut.
func (d *day) joiningMaster(t *testing.T) {
	t.Parallel()
	d.wait(t)
	m := d.boot(t, "second", func(n *boottest.Node) { n.Clock = time.Now().Add(-time.Hour) })
	d.strike(t, m, d.second)
	_, err := d.revive(t, "second", nil)
	must(t, err)
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
