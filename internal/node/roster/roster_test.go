package roster

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

type answers map[string]string

func (a answers) Get(_ context.Context, path string, out any) error {
	path, _, _ = strings.Cut(path, "?")
	return json.Unmarshal([]byte(a[path]), out)
}

// TestReadAndWrite holds the whole screen of a cluster with something of everything.
func TestReadAndWrite(t *testing.T) {
	r, err := Read(t.Context(), answers{
		"/version": `{"gitVersion":"v1.37.2"}`,
		"/api/v1/nodes": `{"items":[
 {"metadata":{"name":"w2","creationTimestamp":"2026-11-25T03:59:50Z","annotations":{"imgbuild.dev/first-boot":"garbage"}},"status":{}},
 {"metadata":{"name":"m1","creationTimestamp":"2026-11-23T04:00:00Z","labels":{"node-role.kubernetes.io/control-plane":""},
  "annotations":{"imgbuild.dev/first-boot":"{\"phase\":\"published\",\"step\":\"pod network\",\"attempt\":2,\"cause\":\"kubectl says no\",\"since\":\"2026-11-25T03:55:00Z\"}"}},
  "spec":{"unschedulable":true},"status":{"nodeInfo":{"kubeletVersion":"v1.37.2"},"addresses":[{"type":"Hostname","address":"m1"},{"type":"InternalIP","address":"10.0.0.10"}],
  "conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","message":"Kubelet stopped posting node status.","lastTransitionTime":"2026-11-25T01:59:30Z"}]}}]}`,
		"/apis/certificates.k8s.io/v1/certificatesigningrequests": `{"items":[{"metadata":{"name":"q1","creationTimestamp":"2026-11-25T03:58:00Z"},"spec":{"username":"u"}},{"metadata":{"name":"q2"},"status":{"certificate":"eA=="}}]}`,
		"/api/v1/namespaces/kube-system/secrets":                  `{"items":[{"data":{"token-id":"YWJjZGVm","expiration":"MjAyNi0xMS0yNVQwNDozMDowMFo="}},{"data":{"token-id":"b2xk","expiration":"MjAyNi0xMS0yNFQwNDozMDowMFo="}},{"data":{"token-id":"ZXZlcg=="}}]}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Cluster, r.Server = "demo", "https://10.0.0.10:6443"
	var b strings.Builder
	if err := r.Write(&b, time.Date(2026, 11, 25, 4, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	want := `cluster demo at https://10.0.0.10:6443, Kubernetes v1.37.2

NODE  ROLE    STATE               SINCE  FIRST BOOT                KUBELET  ADDRESS
m1    master  NotReady, cordoned  2h0m   published, try 2, 5m0s    v1.37.2  10.0.0.10
w2    worker  NotReady            10s    not noted                          

m1 waits: Kubelet stopped posting node status. (NodeStatusUnknown)
m1 failed at pod network: kubectl says no
w2 waits: its kubelet has not said anything yet
request q1 of u waits for an answer since 2m0s: kubectl certificate approve q1
token abcdef ends in 30m0s
token old has ended
token ever never ends
A machine that has not joined cannot be seen from here: its console, and ` + "`imgbuild-firstboot status`" + ` on it, say what it waits for.
`
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if squeeze(b.String()) != squeeze(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if r.Nodes[0].Role != config.Master || r.Nodes[1].FirstBoot != nil {
		t.Errorf("%+v", r.Nodes)
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 25, 4, 0, 0, 0, time.UTC)
	for want, d := range map[string]time.Duration{"5s": 5 * time.Second, "1m5s": 65 * time.Second, "3h1m": 3*time.Hour + time.Minute, "47h0m": 47 * time.Hour, "3d4h": 76 * time.Hour} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if ago(now, time.Time{}) != "?" {
		t.Error("a time that is not known")
	}
}
