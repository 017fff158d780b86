package firstboot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// node is a machine under test: a folder as its root, and programs that leave
// what the real ones leave. cutAt ends the power at the n-th program start.
type node struct {
	t        *testing.T
	root     string
	creds    string
	calls    []string
	cutAt    int
	fail     map[string]int // program and first words → how often it fails
	cancel   context.CancelFunc
	pods     string   // that run, as crictl lists them
	own      string   // the machine's address
	api      *fakeAPI // of a master: what its control plane answers
	endpoint string
	net      *network // the rest of the world
	noted    int      // how often its Node object was told that it is a member
	heard    func(call string)
}

// agent is the agent of a boot on this machine.
func (n *node) agent(console io.Writer) *Agent {
	return &Agent{Root: n.root, Runner: n, Console: console, Credential: n.creds, Pause: time.Millisecond,
		links: func() ([]link, error) { return []link{{"lo", "127.0.0.1"}, {"ens3", n.own}}, nil },
		dial:  n.net.dial}
}

func newNode(t *testing.T, role string, data []byte) *node {
	t.Helper()
	n := &node{t: t, root: t.TempDir(), creds: t.TempDir(), fail: map[string]int{}, net: newNetwork(), own: "10.0.0.10"}
	n.put("etc/imgbuild/node.json", fmt.Sprintf(`{"role":%q,"kubernetesVersion":"1.37.2","podCIDR":"10.244.0.0/16","serviceCIDR":"10.96.0.0/12","dnsDomain":"cluster.local","proxyMode":"nftables","cni":"flannel","images":["r.io/pause:1"],"planID":"p1"}`, role))
	n.put("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
	n.put("etc/hosts", "127.0.0.1 localhost\n")
	n.put("etc/imgbuild/manifests/flannel.yaml", "")
	for _, dir := range []string{"etc/kubernetes", "var/lib/kubelet", "root"} {
		if err := os.MkdirAll(filepath.Join(n.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(n.creds, config.Credential), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if role == config.Master {
		c, err := config.Parse(data)
		if err != nil {
			c = nil // the test is about that
		} else if c.PKI != nil {
			n.api, n.endpoint = newAPI(t, c, "uid-5"), c.Endpoint
		}
	}
	return n
}

func (n *node) put(name, text string) {
	file := filepath.Join(n.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) phase() Phase {
	j, err := readJournal(filepath.Join(n.root, StateDir, "journal.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	return j.Phase
}

// Run implements Runner.
func (n *node) Run(_ context.Context, name string, args ...string) (string, error) {
	call := strings.Join(append([]string{name}, args...), " ")
	call = strings.ReplaceAll(call, n.root, "")
	n.calls = append(n.calls, call)
	if n.cutAt > 0 && len(n.calls) == n.cutAt {
		n.cancel() // the power goes: nothing after this is written
		return "", context.Canceled
	}
	if strings.Contains(call, " --skip-phases preflight") {
		n.pods = "0123456789ab\n" // whether it gets through or not
	}
	for prefix := range n.fail {
		if strings.HasPrefix(call, prefix) && n.fail[prefix] > 0 {
			n.fail[prefix]--
			return "error: it does not work", errors.New("exit status 1")
		}
	}
	if n.heard != nil {
		n.heard(call)
	}
	if strings.Contains(call, config.Annotation+`={"phase":"committed"`) {
		n.noted++
	}
	before := n.phase()
	switch {
	case strings.HasPrefix(call, "mount "):
		data, err := os.ReadFile(filepath.Join(n.root, "seed.yaml"))
		n.put(RunDir+"/seed/node.yaml", string(data))
		return "", err
	case strings.HasPrefix(call, "kubeadm reset"):
		if before != Dirty {
			n.t.Errorf("kubeadm reset in phase %s", before)
		}
		n.unplug() // and its pods live on, as on a slow machine
	case strings.HasPrefix(call, "crictl images"):
		return "level=warning msg=\"a word on stderr\"\n" + `{"images":[{"repoTags":["r.io/other:1"]},{"repoTags":["r.io/pause:1"]}]}`, nil
	case strings.HasSuffix(call, "rmp --all --force"):
		n.pods = ""
	case strings.HasSuffix(call, "pods --quiet"):
		return "level=warning msg=\"a word on stderr\"\n" + n.pods, nil
	case strings.HasSuffix(call, " phase preflight --config "+RunDir+"/kubeadm.yaml") && n.pods != "":
		return "[ERROR Port-10259]: Port 10259 is in use", errors.New("exit status 1")
	case strings.HasPrefix(call, "kubeadm init --skip-phases preflight,upload"), strings.HasPrefix(call, "kubeadm join --skip-phases"):
		if before != Dirty {
			n.t.Errorf("%s in phase %s, want it recorded as dirty first", call, before)
		}
		if _, err := os.Stat(filepath.Join(n.root, RunDir, kubeletFlag)); err != nil {
			n.t.Errorf("%s while the kubelet is barred", call)
		}
		n.put("etc/kubernetes/admin.conf", "admin")
		n.put("var/lib/kubelet/config.yaml", "kubelet")
		n.control()
	case strings.HasPrefix(call, "systemctl start --no-block kubelet") && before == Published:
		n.control()
	case strings.HasPrefix(call, "kubeadm init --skip-phases preflight,certs"):
		if before != Published {
			n.t.Errorf("the cluster is published in phase %s", before)
		}
		n.api.publish()
		return "[bootstrap-token] Using token: " + n.token(), nil
	}
	return "", nil
}

// control lets this machine's control plane answer, at the endpoint too if nobody else does.
func (n *node) control() {
	if n.api == nil {
		return
	}
	n.net.set(localAPI, n.api.address())
	if n.net.get(n.endpoint) == "" {
		n.net.set(n.endpoint, n.api.address())
	}
}

// unplug ends it.
func (n *node) unplug() {
	n.net.set(localAPI, "")
	if n.api != nil && n.net.get(n.endpoint) == n.api.address() {
		n.net.set(n.endpoint, "")
	}
}

func (n *node) token() string {
	data, _ := os.ReadFile(filepath.Join(n.creds, config.Credential))
	c, err := config.Parse(data)
	if err != nil {
		n.t.Fatal(err)
	}
	return c.Token.Reveal()
}

// boot runs the agent as a boot does, and returns what it said.
func (n *node) boot() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n.cancel = cancel
	n.unplug()
	n.pods = ""
	_ = os.RemoveAll(filepath.Join(n.root, RunDir)) // /run is memory
	var console bytes.Buffer
	err := n.agent(&console).Run(ctx)
	return console.String(), err
}

func (n *node) count(prefix string) (c int) {
	for _, call := range n.calls {
		if strings.HasPrefix(call, prefix) {
			c++
		}
	}
	return c
}

func TestMasterCommitsOnce(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	said, err := n.boot()
	if err != nil || n.phase() != Committed {
		t.Fatalf("phase %s, %v\n%s", n.phase(), err, said)
	}
	want := map[string]os.FileMode{"etc/kubernetes/pki/ca.key": 0o600, "etc/kubernetes/pki/sa.pub": 0o644, "etc/kubernetes/pki/etcd/ca.key": 0o600,
		"root/.kube/config": 0o600, "var/lib/imgbuild/etc/machine-id": 0o444}
	for name, mode := range want {
		if info, err := os.Stat(filepath.Join(n.root, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want mode %v", name, info, err, mode)
		}
	}
	if _, err := os.Stat(filepath.Join(n.root, RunDir, "kubeadm.yaml")); err == nil {
		t.Error("kubeadm's configuration, with the token, is still there")
	}
	n.calls = nil
	if _, err := n.boot(); err != nil || n.count("kubeadm") != 0 || n.count("systemctl start --no-block kubelet") != 1 {
		t.Errorf("second boot: %v, ran %q", err, n.calls)
	}
}

// TestPowerCuts ends the power at every program that the agent starts: the next
// boots finish the work, and what may not be repeated is not (see node.Run).
func TestPowerCuts(t *testing.T) {
	server := api(t, true)
	for _, role := range []string{config.Master, config.Worker} {
		data, _ := sample(t, role)
		if role == config.Worker {
			data = pointAt(t, data, server)
		}
		whole := newNode(t, role, data)
		if said, err := whole.boot(); err != nil {
			t.Fatalf("%s: %v\n%s", role, err, said)
		}
		for cut := 1; cut <= len(whole.calls); cut++ {
			n := newNode(t, role, data)
			n.cutAt = cut
			if _, err := n.boot(); !errors.Is(err, context.Canceled) {
				t.Fatalf("%s cut at %d: %v", role, cut, err)
			}
			n.cutAt = 0
			if said, err := n.boot(); err != nil || n.phase() != Committed || n.noted != 1 {
				t.Errorf("%s cut at %q: phase %s, noted %d times, %v\n%s", role, whole.calls[cut-1], n.phase(), n.noted, err, said)
			}
		}
	}
}

func TestFailuresAreBoundedAndTold(t *testing.T) {
	data, c := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.fail["kubeadm init phase preflight"] = 100
	said, err := n.boot()
	if err == nil || n.count("kubeadm init phase preflight") != maxAttempts {
		t.Fatalf("%d tries, %v", n.count("kubeadm init phase preflight"), err)
	}
	var s Status
	text, _ := os.ReadFile(filepath.Join(n.root, RunDir, "status.json"))
	if err := json.Unmarshal(text, &s); err != nil || s.Step != "preflight" || s.Cause == "" || s.Cure == "" || s.Phase != Fresh {
		t.Errorf("status %s, %v", text, err)
	}
	if !strings.Contains(said, "This node did not join its cluster.") {
		t.Errorf("no banner in\n%s", said)
	}
	delete(n.fail, "kubeadm init phase preflight")
	if said, err := n.boot(); err != nil {
		t.Errorf("once mended: %v\n%s", err, said)
	}
	for _, dir := range []string{StateDir, RunDir} {
		out, _ := os.ReadDir(filepath.Join(n.root, dir))
		for _, e := range out {
			if data, _ := os.ReadFile(filepath.Join(n.root, dir, e.Name())); bytes.Contains(data, []byte(c.Token.Reveal()[7:])) {
				t.Errorf("%s/%s holds the token", dir, e.Name())
			}
		}
	}
}

// On a slow machine kubeadm's reset leaves pods behind: ports in use for every later try.
func TestPodsOfABrokenTryAreStopped(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.fail["kubeadm init --skip-phases preflight,upload"] = 1
	n.fail["crictl --timeout 2m rmp"] = 1
	if text, err := n.boot(); err != nil || n.phase() != Committed {
		t.Errorf("%v\n%s", err, text)
	}
	if got := strings.Count(strings.Join(n.calls, "\n"), "rmp --all --force"); got != 2 {
		t.Errorf("the pods were stopped %d times, want 2", got)
	}
}

func TestDamagedJournalIsNotGuessed(t *testing.T) {
	data, _ := sample(t, config.Master)
	for name, text := range map[string]string{"torn": `{"phase": "comm`, "empty": "", "unknown": `{"phase":"later"}`} {
		n := newNode(t, config.Master, data)
		n.put("var/lib/imgbuild/firstboot/journal.json", text)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		a := n.agent(io.Discard)
		if err := a.Run(ctx); err == nil || !strings.Contains(err.Error(), "is damaged") || len(n.calls) != 0 {
			t.Errorf("%s: %v, ran %q", name, err, n.calls)
		}
		cancel()
	}
}

// TestMemberWithoutRecordIsLeftAlone boots a disk whose journal is lost.
func TestMemberWithoutRecordIsLeftAlone(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	n.put("etc/kubernetes/kubelet.conf", "kubeconfig")
	if _, err := n.boot(); err == nil || !strings.Contains(err.Error(), "holds a member of a cluster") || len(n.calls) != 0 {
		t.Errorf("%v, ran %q", err, n.calls)
	}
}

// TestFreshTokenNeedsNoReboot attaches a seed disk with the right token to a
// worker that waits with a wrong one.
func TestFreshTokenNeedsNoReboot(t *testing.T) {
	data, _ := sample(t, config.Worker)
	good := pointAt(t, data, api(t, true))
	n := newNode(t, config.Worker, []byte(strings.ReplaceAll(string(good), "token: aaaaaa.", "token: bbbbbb.")))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	said, console := io.Pipe()
	a := n.agent(console)
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(a.Run(ctx), console.Close()) }()
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if strings.Contains(lines.Text(), "does not know the token") {
			n.put("seed.yaml", string(good))
			n.put("dev/disk/by-label/IMGBUILD", "")
		}
	}
	if err := <-ended; err != nil || n.phase() != Committed || n.count("kubeadm join phase preflight") != 1 {
		t.Errorf("%v, phase %s, ran %q", err, n.phase(), n.calls)
	}
}

// TestUnreadableConfigIsNotReadOnAndOn: a person attaches a seed disk that is no good.
func TestUnreadableConfigIsNotReadOnAndOn(t *testing.T) {
	data, _ := sample(t, config.Worker)
	n := newNode(t, config.Worker, pointAt(t, data, api(t, false)))
	n.heard = func(call string) {
		if strings.HasPrefix(call, "crictl images") { // it is about to wait for the API
			n.put("seed.yaml", "nonsense")
			n.put("dev/disk/by-label/IMGBUILD", "")
		}
	}
	said, err := n.boot()
	if err == nil || strings.Count(said, "node config failed") > maxAttempts || n.count("mount") > 2*maxAttempts {
		t.Errorf("%v, mounted %d times\n%s", err, n.count("mount"), said)
	}
}

// TestMemberWhoseRecordFails: a member it is when the record says so, and not before.
func TestMemberWhoseRecordFails(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	a := n.agent(io.Discard)
	a.journal.Phase = Published
	n.put(StateDir, "") // no folder
	if err := a.record(Committed); err == nil || a.journal.Phase != Published {
		t.Errorf("phase %s, %v", a.journal.Phase, err)
	}
}

// TestConfigsThatMayNotFollow gives a machine whose cluster others may count on another node config.
func TestConfigsThatMayNotFollow(t *testing.T) {
	data, c := sampleOf(t, virtualEndpoint, "master-join.yaml", threeMasters...)
	first, _ := sampleOf(t, virtualEndpoint, "master.yaml", threeMasters...)
	ca, err := config.ParseCert(c.CACert)
	if err != nil {
		t.Fatal(err)
	}
	own := string(data)
	for name, k := range map[string]struct{ journal, config, want string }{
		"a voter, as a first master":              {`{"phase":"dirty","peers":"10.0.0.10","cluster":"` + sum(ca.Raw) + `"}`, strings.Replace(own, "joins: true\n", "", 1), "may be a member of a cluster's etcd, and the node config is a first master's"},
		"a voter, in another cluster":             {`{"phase":"dirty","peers":"10.0.0.10","cluster":"other"}`, own, "may be a member of a cluster's etcd, and the node config is another cluster's"},
		"a published cluster, as one that joins":  {`{"phase":"published","cluster":"` + sum(ca.Raw) + `"}`, own, "has published a cluster, and the node config is that of a master that joins"},
		"a published cluster, as another's first": {`{"phase":"published","cluster":"other"}`, string(first), "has published a cluster, and the node config is another cluster's"},
	} {
		n := newNode(t, config.Master, []byte(k.config))
		n.put("var/lib/imgbuild/firstboot/journal.json", k.journal)
		n.put("var/lib/etcd/member", "data")
		said, err := n.bootUntil(k.want)
		if _, gone := os.Stat(filepath.Join(n.root, "var/lib/etcd/member")); err == nil || gone != nil || !strings.Contains(said, k.want) || n.count("kubeadm") != 0 {
			t.Errorf("%s: %v, %v, ran %q\n%s", name, err, gone, n.calls, said)
		}
	}
}

func TestWrongRoleIsRefused(t *testing.T) {
	data, _ := sample(t, config.Worker)
	n := newNode(t, config.Master, data)
	if _, err := n.boot(); err == nil || !strings.Contains(err.Error(), "this is a master's image, the node config is a worker's") {
		t.Error(err)
	}
	if n.count("kubeadm") != 0 {
		t.Errorf("ran %q", n.calls)
	}
}

// TestWorkerNamesWhatIsMissing holds the agent against endpoints that are wrong.
func TestWorkerNamesWhatIsMissing(t *testing.T) {
	data, _ := sample(t, config.Worker)
	good := api(t, true)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"unknown token":  {pointAt(t, data, api(t, false)), "does not know the token"},
		"other CA":       {[]byte(strings.ReplaceAll(string(data), "10.0.0.10:6443", good.Listener.Addr().String())), "this cluster's CA did not sign"},
		"no network":     {data, "no address yet"},
		"nobody listens": {[]byte(strings.ReplaceAll(string(data), "10.0.0.10:6443", "127.0.0.1:1")), "does not answer"},
	} {
		n := newNode(t, config.Worker, c.data)
		if name == "no network" {
			n.own = "fe80::1"
		}
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		var console bytes.Buffer
		a := n.agent(&console)
		err := a.Run(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(a.status.Waiting, c.want) || a.status.Cure == "" || n.count("kubeadm") != 0 {
			t.Errorf("%s: %v, waiting %q, cure %q, ran %q", name, err, a.status.Waiting, a.status.Cure, n.calls)
		}
	}
}

// api is an endpoint whose cluster-info is signed with every token, or with none.
func api(t *testing.T, signed bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		data := map[string]string{"kubeconfig": "x"}
		if signed {
			data["jws-kubeconfig-aaaaaa"] = "signature"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// pointAt rewrites a worker's config for a test server: its address, its
// certificate as the CA, and the token that it signs with.
func pointAt(t *testing.T, data []byte, s *httptest.Server) []byte {
	t.Helper()
	text := strings.ReplaceAll(string(data), "10.0.0.10:6443", s.Listener.Addr().String())
	head, _, _ := strings.Cut(text, "token: ")
	var b strings.Builder
	b.WriteString(head + "token: aaaaaa.0123456789abcdef\ntokenTTL: 24h0m0s\ncaCert: |\n")
	for line := range strings.Lines(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))) {
		b.WriteString("  " + line)
	}
	return []byte(b.String())
}
