// Package cluster boots what imgbuild builds and asks the running nodes: one
// master and one worker, from the real command line and a bad first boot to two
// Ready nodes, a power cut and back.
package cluster

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/faults"
	"github.com/imgbuild/imgbuild/test/kit"
)

// version is the Kubernetes version to test; empty is the profile's.
var version = flag.String("kubernetes", "", "Kubernetes version of the cluster, such as 1.36 (default: the newest)")

// limit is how long a cluster may take to come up on an emulated processor.
const limit = 40 * time.Minute

// images are what both tests start from: the tools, an identity, a master's and a
// worker's image and their plans, made once.
type images struct {
	kit   kit.Kit
	more  []string // what the builds add to the command line
	files map[string]string
	plans map[string]*plan.Plan
	judge string // kube-bench, in a tar
}

var folder string // of all that the tests make

var built = sync.OnceValues(func() (*images, error) {
	ctx := context.Background()
	b := &images{kit: kit.Kit{Bin: filepath.Join(folder, "bin"), Dir: folder, Said: os.Stderr}, files: map[string]string{}, plans: map[string]*plan.Plan{}}
	b.more = []string{"--set", "time.servers=" + faults.TimeServer}
	if *version != "" {
		b.more = append(b.more, "--set", "kubernetes.version="+*version)
	}
	err := b.kit.BuildTools(ctx, "../..")
	if err == nil {
		_, err = b.kit.Imgbuild(ctx, "cluster", "new", "demo", "--endpoint", faults.Endpoint, "--dir", filepath.Join(folder, "cluster"))
	}
	if err != nil {
		return nil, err
	}
	if b.judge, err = buildJudge(ctx, b.kit); err != nil {
		return nil, err
	}
	for role, format := range map[string]string{"master": "raw", "worker": "qcow2"} {
		image, err := b.kit.Image(ctx, role, format, b.more...)
		if err != nil {
			return nil, err
		}
		text, err := b.kit.Imgbuild(ctx, append([]string{"plan", role, "-o", filepath.Join(folder, "out"), "--format", format, "--output", "json"}, b.more...)...)
		if err != nil {
			return nil, err
		}
		b.files[role], b.plans[role] = image, &plan.Plan{}
		if err := json.Unmarshal([]byte(text), b.plans[role]); err != nil {
			return nil, err
		}
	}
	return b, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if folder, err = os.MkdirTemp("", "imgbuild-cluster-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// TestImages asks what needs no machine, or one that must not come up.
func TestImages(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two images: left out by -short")
	}
	b, err := built()
	must(t, err)
	ctx := t.Context()
	t.Run("the same again", func(t *testing.T) { buildAgain(ctx, t, b.kit, b.more) })
	t.Run("offline", func(t *testing.T) { buildOffline(ctx, t, b.kit, b.more) })
	t.Run("signed", func(t *testing.T) { signedBuild(ctx, t, b.kit, filepath.Join(b.kit.Dir, "out", "imgbuild.lock")) })
	t.Run("cold", func(t *testing.T) { buildCold(ctx, t, b.kit, b.more) })
	t.Run("elsewhere", func(t *testing.T) { buildElsewhere(ctx, t, b.kit, b.more) })
	t.Run("for hosts", func(t *testing.T) {
		buildForHosts(ctx, t, b.kit, filepath.Join(b.kit.Dir, "out", "imgbuild.lock"), b.more)
	})
	t.Run("looked into", func(t *testing.T) { lookInside(ctx, t, b.kit) })
	t.Run("stamped", func(t *testing.T) { stampImages(ctx, t, b.kit, b.files["worker"]) })
	t.Run("by BIOS", func(t *testing.T) { bootByBIOS(ctx, t, b.kit, b.more) })
	t.Run("corrupt root is refused", func(t *testing.T) { refuseCorruptRoot(ctx, t, b.files["worker"], b.kit) })
}

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	b, err := built()
	must(t, err)
	files := maps.Clone(b.files)
	files["worker"] = filepath.Join(b.kit.Dir, "stamped.qcow2")
	_, err = b.kit.Imgbuild(t.Context(), "stamp", b.files["worker"], "-o", files["worker"], "--config", filepath.Join(b.kit.Dir, "cluster", "worker.yaml"), "--network", "testdata/10-static.network")
	must(t, err)
	c, err := b.kit.Network(t.Context(), files)
	must(t, err)
	c.Stamped = true
	t.Cleanup(c.Close)
	c.Site().Slow(t, 0.5) // on a machine half as fast as most, a control plane loses its leases and restarts
	s := &suite{c: c, kit: b.kit, plans: b.plans, images: b}
	g := c.Guard(t.Context(), guardRate, s.targets()...)
	c.Master, c.Worker = faults.BadDay(t, c.Site(), files, func(n *boottest.Node) { n.Memory += 768; c.Watched(n) }, true)
	must(t, c.Worker.Yield(t.Context(), 2)) // as c does it
	must(t, c.WaitReady(limited(t, limit)))
	s.knocks, err = g.Stop()
	must(t, err)
	s.boot = c.Stranger.Heard()

	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"preflight is clean", s.preflight},
		{"bill of materials is true", s.billIsTrue},
		{"pods and services", s.pods},
		{"from outside", s.outside},
		{"no window at boot", s.noWindow},
		{"every port", s.everyPort},
		{"through the tunnel", s.tunnelled},
		{"webhook on the other node", s.webhook},
		{"firewall restarts", s.restart},
		{"nothing secret lies about", s.secrets},
		{"hardening", s.hardening},
		{"status", s.status},
		{"cold boot", s.coldBoot},
		{"kubeadm reset keeps the rules", s.reset},
	} {
		if well := !t.Failed(); !t.Run(step.name, step.do) && well { // the first: others may follow from it
			kit.Keep(t, "cluster", c.Master, c.Worker)
		}
		if c.Worker == nil {
			t.Fatal("the worker is off: there is nothing more to ask")
		}
	}
}

// suite asks one running cluster.
type suite struct {
	c     *kit.Cluster
	kit   kit.Kit
	plans map[string]*plan.Plan

	images *images
	boot   map[vnet.Probe]vnet.Answer // what answered while the nodes booted
	knocks int                        // of how many
}

func (s *suite) nodes() map[string]*boottest.Machine {
	return map[string]*boottest.Machine{"master": s.c.Master, "worker": s.c.Worker}
}

// onBoth does the same to both nodes at once.
func (s *suite) onBoth(t *testing.T, do func(t *testing.T, role string, m *boottest.Machine)) {
	t.Run("on", func(t *testing.T) { // ends when both have
		for role, m := range s.nodes() {
			t.Run(role, func(t *testing.T) {
				t.Parallel()
				do(t, role, m)
			})
		}
	})
}

// preflight wants kubeadm's own checks, as the agent ran them before init and
// join, without an error and without a warning.
func (s *suite) preflight(t *testing.T) {
	s.onBoth(t, func(t *testing.T, role string, m *boottest.Machine) {
		text := sh(t, m, "cat /run/imgbuild/status.json")
		var status firstboot.Status
		must(t, json.Unmarshal([]byte(text), &status))
		if status.Phase != firstboot.Committed || len(status.Warnings) > 0 || status.Attempt < 1 || status.Cause != "" {
			t.Errorf("%s: %s", role, text)
		}
		if log := sh(t, m, "cat /var/lib/imgbuild/firstboot/kubeadm-*preflight.log"); strings.Contains(log, "[WARNING") || !strings.Contains(log, "[preflight] Running pre-flight checks") {
			t.Errorf("%s: kubeadm said:\n%s", role, log)
		}
	})
}

// checks runs every check that the plan carries, on the node of its role.
func (s *suite) checks(t *testing.T) {
	s.onBoth(t, func(t *testing.T, role string, m *boottest.Machine) {
		if len(s.plans[role].Checks) < 20 {
			t.Errorf("%s: the plan has only %d checks", role, len(s.plans[role].Checks))
		}
		var checks []boottest.Check
		for _, c := range s.plans[role].Checks {
			checks = append(checks, boottest.Check{Name: c.Name, Command: c.Command})
		}
		for _, r := range boottest.RunChecks(t.Context(), m, checks) {
			if !r.OK {
				t.Errorf("%s: %s: %s: %v\n%s", role, r.Name, r.Command, r.Err, r.Output)
			}
		}
	})
}

// pods wants a pod on the worker to reach a pod on the master, by address and by
// a service's name.
func (s *suite) pods(t *testing.T) {
	manifest, err := os.ReadFile("testdata/web.yaml")
	must(t, err)
	image := sh(t, s.c.Master, "crictl images -o json | grep -o 'ghcr.io/flannel-io/flannel:[^\"]*' | head -1")
	text := strings.NewReplacer("@IMAGE@", image, "@MASTER@", sh(t, s.c.Master, "hostname"), "@WORKER@", sh(t, s.c.Worker, "hostname")).Replace(string(manifest))
	sh(t, s.c.Master, "cat > /run/web.yaml <<'YAML'\n"+text+"\nYAML\nkubectl apply -f /run/web.yaml && kubectl wait --for=condition=Ready pod/web pod/client --timeout=600s")
	ip := sh(t, s.c.Master, "kubectl get pod web -o jsonpath={.status.podIP}")
	for _, host := range []string{ip + "/8080", "web.default.svc.cluster.local/80"} {
		got, err := s.c.Master.Until(limited(t, 8*time.Minute), 3*time.Second, "kubectl exec client -- bash -c 'exec 3<>/dev/tcp/"+host+"; cat <&3'")
		if err != nil || got != "hello from web" {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
	}
	for _, node := range []string{kit.MasterIP, kit.WorkerIP} { // the worker passes it on to the pod's node
		if got, err := s.ask(limited(t, 3*time.Minute), node+":30080"); err != nil || got != "hello from web" {
			t.Errorf("NodePort of %s, from outside: got %q, %v", node, got, err)
		}
	}
	if got, err := s.c.Master.Until(limited(t, 5*time.Minute), 3*time.Second, "kubectl port-forward pod/web 18080:8080 >/run/forward.log & trap \"kill $!\" EXIT; "+
		"for i in $(seq 60); do grep -q ^Forwarding /run/forward.log && break; sleep 1; done; cat </dev/tcp/127.0.0.1/18080"); err != nil || got != "hello from web" {
		t.Errorf("port-forward: got %q, %v", got, err)
	}
	sh(t, s.c.Master, "kubectl logs client | grep -q 'client is up' && kubectl delete -f /run/web.yaml --now --wait=false")
	// Made anew now that both nodes are there, they spread: at first boot both go where the first node is.
	sh(t, s.c.Master, "kubectl -n kube-system scale deployment coredns --replicas=0 && kubectl -n kube-system wait --for=delete pod -l k8s-app=kube-dns --timeout=400s && "+
		"kubectl -n kube-system scale deployment coredns --replicas=2 && kubectl -n kube-system rollout status deployment coredns --timeout=600s")
	for app, label := range map[string]string{"coredns": "kube-system get pods -l k8s-app=kube-dns", "flannel": "kube-flannel get pods -l k8s-app=flannel"} {
		nodes := sh(t, s.c.Master, "kubectl -n "+label+" --field-selector=status.phase=Running -o jsonpath='{range .items[*]}{.spec.nodeName}{\"\\n\"}{end}' | sort -u")
		if len(strings.Fields(nodes)) != 2 {
			t.Errorf("%s runs on %q, want both nodes", app, nodes)
		}
	}
}

// ask connects from the gateway, as soon as somebody is there, and reads all that is said.
func (s *suite) ask(ctx context.Context, addr string) (string, error) {
	conn, err := s.c.Net.Dial(ctx, addr)
	for err != nil && ctx.Err() == nil { // kube-proxy hears of a service later
		time.Sleep(time.Second)
		conn, err = s.c.Net.Dial(ctx, addr)
	}
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	data, err := io.ReadAll(conn)
	return strings.TrimSpace(string(data)), err
}

// outside looks from the network's gateway: the API answers an operator's own
// kubeconfig, and what is not declared is closed.
func (s *suite) outside(t *testing.T) {
	must(t, s.c.API.Until(limited(t, 3*time.Minute), func(ctx context.Context) error {
		nodes, err := s.c.API.List(ctx, "/api/v1/nodes")
		if err == nil && len(nodes) != 2 {
			err = fmt.Errorf("the operator's kubeconfig sees %d nodes", len(nodes))
		}
		return err
	}))
	for _, p := range []struct {
		ip, port string
		open     bool
	}{
		{kit.MasterIP, "6443", true}, {kit.MasterIP, "10250", true}, {kit.WorkerIP, "10250", true},
		{kit.MasterIP, "22", false}, {kit.MasterIP, "111", false}, {kit.MasterIP, "10257", false}, {kit.MasterIP, "10259", false}, {kit.MasterIP, "10249", false},
		{kit.WorkerIP, "22", false}, {kit.WorkerIP, "6443", false}, {kit.WorkerIP, "2379", false}, {kit.WorkerIP, "8080", false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		conn, err := s.c.Net.Dial(ctx, net.JoinHostPort(p.ip, p.port))
		cancel()
		if err == nil {
			conn.Close()
		}
		if (err == nil) != p.open {
			t.Errorf("%s:%s open: %v, want %v (%v)", p.ip, p.port, err == nil, p.open, err)
		}
	}
	if _, err := s.c.Master.Until(limited(t, 8*time.Minute), 3*time.Second, "kubectl --server https://127.0.0.1:6443 get --raw /livez"); err != nil { // etcd may be busy for a moment
		t.Error(err)
	}
}

// secrets looks for the token and for keys where they do not belong.
func (s *suite) secrets(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(s.kit.Dir, "cluster", "worker.yaml"))
	must(t, err)
	_, rest, _ := strings.Cut(string(data), "\ntoken: ")
	token, _, _ := strings.Cut(rest, "\n")
	s.onBoth(t, func(t *testing.T, role string, m *boottest.Machine) {
		sh(t, m, "! journalctl -b --no-pager | grep -F "+token[7:])
		sh(t, m, "! grep -rIlF "+token[7:]+" /var/lib/imgbuild /var/log /etc /proc/cmdline 2>/dev/null | grep .")
		sh(t, m, "test ! -e /run/imgbuild/kubeadm.yaml")
		if log, err := os.ReadFile(filepath.Join(m.Dir, "console.log")); err != nil || strings.Contains(string(log), token[7:]) {
			t.Errorf("%s: the console shows the token (%v)", role, err)
		}
	})
	sh(t, s.c.Worker, "! find /etc/kubernetes /var/lib/imgbuild -name '*.key' | grep .")
}

// coldBoot powers the worker off and boots it again, on a larger disk: it is who it was,
// what was changed in /etc is gone, nothing was initialised anew, /var takes the space that
// came, and every check of the plans holds on both nodes. The master's power was cut before
// (faults.BadDay), and test/ha cuts that of a member.
func (s *suite) coldBoot(t *testing.T) {
	const who = "cat /etc/machine-id; hostname; cat /var/lib/imgbuild/firstboot/journal.json | grep -v bootID; sha256sum /etc/kubernetes/pki/ca.crt; stat -c %i:%W /var/lib/kubelet/config.yaml"
	before := sh(t, s.c.Worker, who)
	sh(t, s.c.Worker, "echo drift > /etc/drift; echo 'PermitRootLogin yes' >> /etc/passwd-drift; rm -f /etc/crictl.yaml; sync")
	const nodes = "kubectl get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}' | sort"
	uids := sh(t, s.c.Master, nodes)
	const size = "findmnt -bno SIZE /var"
	was := sh(t, s.c.Worker, size)
	must(t, s.c.StopWorker(t.Context()))
	off := s.c.Site().Now()
	must(t, run.Run(t.Context(), run.Cmd{Name: "qemu-img", Args: []string{"resize", "-q", filepath.Join(s.kit.Dir, "machines", "worker", "disk.qcow2"), "+4G"}}))
	ctx := limited(t, limit)
	must(t, s.c.WaitReady(ctx)) // which powers it on
	must(t, s.c.API.Until(ctx, s.c.NodeReady("worker", off)))
	// The API still says what was true before: wait for the pod network itself.
	_, err := s.c.Worker.Until(ctx, 5*time.Second, "test -s /run/flannel/subnet.env && test -e /sys/class/net/flannel.1 && crictl info >/dev/null")
	must(t, err)
	if after := sh(t, s.c.Worker, who); after != before {
		t.Errorf("the worker was\n%s\nand is\n%s", before, after)
	}
	sh(t, s.c.Worker, "test ! -e /etc/drift && test ! -e /etc/passwd-drift && test -e /etc/crictl.yaml")
	if after := sh(t, s.c.Master, nodes); after != uids {
		t.Errorf("nodes were\n%s\nand are\n%s", uids, after)
	}
	sh(t, s.c.Worker, "test $("+size+") -gt $(("+strings.TrimSpace(was)+" + (3 << 30)))")
	t.Run("checks", s.checks)
}

func sh(t *testing.T, m *boottest.Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Minute)
	defer cancel()
	out, err := m.Sh(ctx, script)
	if err != nil {
		t.Errorf("%v", err)
	}
	return out
}

func limited(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
