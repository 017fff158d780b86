package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/etcd"
	"github.com/imgbuild/imgbuild/internal/run"
)

var threeMasters = []string{"10.0.0.10", "10.0.0.11", "10.0.0.12"}

const virtualEndpoint = "10.0.0.100:6443"

func member(id, name, address string) etcd.Member {
	return etcd.Member{ID: id, Name: name, PeerURLs: []string{etcd.PeerURL(address)}}
}

// joiner is the second of three masters, beside a first whose API answers at the
// virtual address and whose etcd has these members.
func joiner(t *testing.T, members ...etcd.Member) (*node, *fakeEtcd) {
	t.Helper()
	data, c := sampleOf(t, virtualEndpoint, "master-join.yaml", threeMasters...)
	n := newNode(t, config.Master, data)
	n.own = "10.0.0.11"
	first, peer := newAPI(t, c, "uid-1"), newEtcd(t, c, members...)
	first.publish()
	n.net.set(virtualEndpoint, first.address())
	n.net.set("10.0.0.10:2379", peer.Listener.Addr().String())
	return n, peer
}

func TestMasterJoins(t *testing.T) {
	n, peer := joiner(t, member("1", "m1", "10.0.0.10"))
	said, err := n.boot()
	if err != nil || n.phase() != Committed {
		t.Fatalf("phase %s, %v\n%s", n.phase(), err, said)
	}
	if n.count("kubeadm init") != 0 || n.count("kubeadm join phase preflight") != 1 || n.count("kubeadm join --skip-phases "+kubeletFirst) != 1 || n.count("kubeadm join --skip-phases "+etcdNext) != 1 || n.count("kubeadm join --skip-phases") != 3 || n.count("systemctl restart imgbuild-vip") != 1 || n.count("kubectl") != 1 {
		t.Errorf("ran %q", n.calls)
	}
	for _, name := range []string{"etc/kubernetes/pki/ca.key", "etc/kubernetes/pki/etcd/ca.key", "root/.kube/config", "etc/kubernetes/kubelet.conf", "var/lib/kubelet/pki/kubelet-client-current.pem"} {
		if info, err := os.Stat(filepath.Join(n.root, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if len(peer.gone()) > 0 {
		t.Errorf("removed members %v", peer.gone())
	}
	if hosts, _ := os.ReadFile(filepath.Join(n.root, "etc/hosts")); !strings.Contains(string(hosts), "10.0.0.11 master-01234567") {
		t.Errorf("hosts:\n%s", hosts)
	}
	n.calls = nil
	if err := os.Remove(filepath.Join(n.creds, config.Credential)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.boot(); err != nil || n.count("kubeadm") != 0 || n.count("systemctl restart imgbuild-vip") != 1 {
		t.Errorf("second boot, without a config: %v, ran %q", err, n.calls)
	}
	if text, err := os.ReadFile(filepath.Join(n.root, RunDir, "keepalived.conf")); err != nil || !strings.Contains(string(text), "unicast_src_ip 10.0.0.11") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestMastersJoinOneByOne waits for one that came just now, unless it is this machine itself.
func TestMastersJoinOneByOne(t *testing.T) {
	for _, c := range []struct {
		young, cni string
		waits      bool
	}{{"m1", "flannel", true}, {"m1", "none", false}, {"master-01234567", "flannel", false}} {
		data, identity := sampleOf(t, virtualEndpoint, "master-join.yaml", threeMasters...)
		n := newNode(t, config.Master, data)
		n.own = "10.0.0.11"
		facts, _ := os.ReadFile(filepath.Join(n.root, "etc/imgbuild/node.json"))
		n.put("etc/imgbuild/node.json", strings.Replace(string(facts), "flannel", c.cni, 1))
		first, peer := newAPI(t, identity, "uid-1"), newEtcd(t, identity, member("1", "m1", "10.0.0.10"))
		first.publish()
		first.young = c.young
		n.net.set(virtualEndpoint, first.address())
		n.net.set("10.0.0.10:2379", peer.Listener.Addr().String())
		said, err := n.bootUntil("the master m1 is on its way, and not Ready yet")
		if errors.Is(err, context.Canceled) != c.waits || c.waits != (n.count("kubeadm") == 0) {
			t.Errorf("%v: %v, ran %q\n%s", c, err, n.calls, said)
		}
	}
}

// TestPowerCutsOfAJoiningMaster cuts at every program; a member that an unfinished
// join has left is removed through the first master before anything is wiped.
func TestPowerCutsOfAJoiningMaster(t *testing.T) {
	whole, _ := joiner(t, member("1", "m1", "10.0.0.10"))
	if said, err := whole.boot(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for cut := 1; cut <= len(whole.calls); cut++ {
		n, peer := joiner(t, member("1", "m1", "10.0.0.10"))
		n.cutAt = cut
		if _, err := n.boot(); !errors.Is(err, context.Canceled) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		n.cutAt = 0
		joined := n.phase() == Dirty
		if joined {
			peer.members = append(peer.members, member("2", "", "10.0.0.11"))
		}
		if said, err := n.boot(); err != nil || n.phase() != Committed || n.noted != 1 || joined != slices.Contains(peer.gone(), "2") {
			t.Errorf("cut at %q: phase %s, noted %d times, removed %v, %v\n%s", whole.calls[cut-1], n.phase(), n.noted, peer.gone(), err, said)
		}
	}
}

// TestNothingIsWipedWithoutAPeer has no other master to ask.
func TestNothingIsWipedWithoutAPeer(t *testing.T) {
	n, _ := joiner(t, member("1", "m1", "10.0.0.10"))
	n.put("var/lib/imgbuild/firstboot/journal.json", `{"phase":"dirty","images":"p1","peers":"10.0.0.10"}`)
	n.put("var/lib/etcd/member", "data")
	n.net.set("10.0.0.10:2379", "")
	if said, err := n.bootUntil("no other master's etcd can be asked"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v\n%s", err, said)
	}
	if _, err := os.Stat(filepath.Join(n.root, "var/lib/etcd/member")); err != nil || n.count("kubeadm") != 0 || n.phase() != Dirty {
		t.Errorf("%v, phase %s, ran %q", err, n.phase(), n.calls)
	}
}

// TestVoterThatTheQuorumNeedsRuns is cut after its member was made a voter: of two, both
// must run for one to be removed; of three one is enough to do without, if another is not down.
func TestVoterThatTheQuorumNeedsRuns(t *testing.T) {
	for name, c := range map[string]struct {
		others   []string
		noQuorum int // tries
		starts   bool
	}{
		"two":                       {[]string{"10.0.0.10"}, 0, true},
		"two, and it takes a while": {[]string{"10.0.0.10"}, 2, true},
		"three":                     {[]string{"10.0.0.10", "10.0.0.12"}, 0, false},
		"three, another is down":    {[]string{"10.0.0.10", "10.0.0.12"}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			members := []etcd.Member{member("2", "m2", "10.0.0.11")}
			for i, address := range c.others {
				members = append(members, member(fmt.Sprint(5+i), fmt.Sprint("m", 5+i), address))
			}
			n, peer := joiner(t, members...)
			n.put("var/lib/imgbuild/firstboot/journal.json", `{"phase":"dirty","images":"p1","peers":"10.0.0.10"}`)
			peer.noQuorum = c.noQuorum
			if said, err := n.boot(); err != nil || n.phase() != Committed || !slices.Equal(peer.gone(), []string{"2"}) {
				t.Fatalf("phase %s, removed %v, %v\n%s", n.phase(), peer.gone(), err, said)
			}
			start, reset := slices.Index(n.calls, "systemctl start --no-block kubelet.service"), slices.IndexFunc(n.calls, func(c string) bool { return strings.HasPrefix(c, "kubeadm reset") })
			if c.starts != (start >= 0) || reset < start {
				t.Errorf("want the kubelet started before the wipe: %v; ran %q", c.starts, n.calls)
			}
		})
	}
}

// TestBothOfTwoLostPower: the first one's etcd serves nobody before this machine's runs.
func TestBothOfTwoLostPower(t *testing.T) {
	for name, left := range map[string]bool{"its etcd can run": true, "its manifest is torn": false} {
		n, peer := joiner(t, member("1", "m1", "10.0.0.10"), member("2", "m2", "10.0.0.11"))
		n.put("var/lib/imgbuild/firstboot/journal.json", `{"phase":"dirty","peers":"10.0.0.10"}`)
		n.put("var/lib/etcd/member/wal", "data")
		manifest := ""
		if left {
			manifest = "kind: Pod"
		}
		n.put("etc/kubernetes/manifests/etcd.yaml", manifest)
		n.net.set("10.0.0.10:2379", "")
		n.heard = func(call string) {
			if call == "systemctl start --no-block kubelet.service" {
				n.net.set("10.0.0.10:2379", peer.Listener.Addr().String())
			}
		}
		if !left {
			if said, err := n.bootUntil("no other master's etcd can be asked"); !errors.Is(err, context.Canceled) || n.count("systemctl start") != 0 {
				t.Errorf("%s: %v, ran %q\n%s", name, err, n.calls, said)
			}
			continue
		}
		if said, err := n.boot(); err != nil || n.phase() != Committed || !slices.Equal(peer.gone(), []string{"2"}) {
			t.Errorf("%s: phase %s, removed %v, %v\n%s", name, n.phase(), peer.gone(), err, said)
		}
	}
}

// TestLearnerOfAnotherIsWaitedFor: etcd takes one at a time.
func TestLearnerOfAnotherIsWaitedFor(t *testing.T) {
	n, _ := joiner(t, member("1", "m1", "10.0.0.10"), etcd.Member{ID: "7", PeerURLs: []string{etcd.PeerURL("10.0.0.12")}, Learner: true})
	said, err := n.bootUntil("the master at 10.0.0.12 is about to become a member of etcd")
	if !errors.Is(err, context.Canceled) || n.count("kubeadm") != 0 {
		t.Errorf("%v, ran %q\n%s", err, n.calls, said)
	}
}

// TestStaleMemberOfAnOldMachine joins at an address that etcd still knows.
func TestStaleMemberOfAnOldMachine(t *testing.T) {
	n, peer := joiner(t, member("1", "m1", "10.0.0.10"), member("9", "old", "10.0.0.11"))
	if said, err := n.boot(); err != nil || !slices.Equal(peer.gone(), []string{"9"}) {
		t.Errorf("removed %v, %v\n%s", peer.gone(), err, said)
	}
}

// TestMasterWithoutAListAsksTheAPI joins by a load balancer.
func TestMasterWithoutAListAsksTheAPI(t *testing.T) {
	data, c := sampleOf(t, virtualEndpoint, "master-join.yaml")
	n := newNode(t, config.Master, data)
	first, peer := newAPI(t, c, "uid-1"), newEtcd(t, c, member("1", "m1", "10.0.0.10"))
	first.publish()
	n.net.set(virtualEndpoint, first.address())
	n.net.set("10.0.0.10:2379", peer.Listener.Addr().String())
	if said, err := n.boot(); err != nil || n.phase() != Committed || n.count("systemctl restart") != 0 {
		t.Errorf("phase %s, %v\n%s", n.phase(), err, said)
	}
}

// TestAnotherMachinesMemberStays has an address of its own now; the one that it had
// when it began to join belongs to another master.
func TestAnotherMachinesMemberStays(t *testing.T) {
	for name, c := range map[string]struct {
		at   etcd.Member
		gone bool
	}{
		"another machine":     {member("7", "m7", "10.0.0.12"), false},
		"this machine's":      {member("7", "master-01234567", "10.0.0.12"), true},
		"one that never rose": {member("7", "", "10.0.0.12"), true},
	} {
		n, peer := joiner(t, member("1", "m1", "10.0.0.10"), c.at)
		n.put("var/lib/imgbuild/firstboot/journal.json", `{"phase":"dirty","images":"p1","hostname":"master-01234567","peers":"10.0.0.10","address":"10.0.0.12"}`)
		if said, err := n.boot(); err != nil || slices.Contains(peer.gone(), "7") != c.gone {
			t.Errorf("%s: removed %v, %v\n%s", name, peer.gone(), err, said)
		}
	}
}

func TestAddressMustBeAMasters(t *testing.T) {
	n, _ := joiner(t)
	n.own = "10.0.0.99"
	if said, err := n.bootUntil("has none of the masters' addresses"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v\n%s", err, said)
	}
}

// first is a first master at a virtual address.
func first(t *testing.T, uid string) (*node, *config.NodeConfig) {
	t.Helper()
	data, c := sampleOf(t, virtualEndpoint, "master.yaml", threeMasters...)
	n := newNode(t, config.Master, data)
	n.api.uid = uid
	return n, c
}

func TestSecondFirstMasterStops(t *testing.T) {
	for name, hurt := range map[string]bool{"well": false, "not well": true} {
		n, c := first(t, "uid-5")
		other := newAPI(t, c, "uid-1")
		other.hurt = hurt
		n.net.set(virtualEndpoint, other.address())
		said, err := n.boot()
		if err == nil || !strings.Contains(err.Error(), "is initialised already") || n.count("kubeadm") != 0 || strings.Count(said, "one cluster failed") != 1 || !strings.Contains(said, "did not join") {
			t.Fatalf("%s: %v, ran %q\n%s", name, err, n.calls, said)
		}
		n.net.set(virtualEndpoint, "") // the other one sleeps: it is there all the same
		if _, err := n.boot(); err == nil || n.count("kubeadm") != 0 {
			t.Errorf("%s: second boot: %v, ran %q", name, err, n.calls)
		}
	}
}

// TestTwoFirstMastersAtOnce lets two come up side by side, at one endpoint.
func TestTwoFirstMastersAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		own, other string
		published  bool
		stays      bool
	}{
		"the lower one stays":      {"uid-1", "uid-5", false, true},
		"the higher one gives way": {"uid-5", "uid-1", false, false},
		"a published one stays":    {"uid-1", "uid-5", true, false},
	} {
		n, conf := first(t, c.own)
		other := newAPI(t, conf, c.other)
		other.published = c.published
		asked := 0
		n.net.set("10.0.0.10:6443", "-") // not the endpoint here
		real := n.net
		a := n.agent(io.Discard)
		a.dial = dialer(func(ctx context.Context, address string) string {
			if address != virtualEndpoint {
				return real.get(address)
			}
			if real.get(localAPI) == "" {
				return "" // both are at the same stage
			}
			if asked++; c.stays && asked > 3 {
				return n.api.address() // the other one has given way
			} else if asked%2 == 0 {
				return n.api.address()
			}
			return other.address()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := a.Run(ctx)
		cancel()
		if c.stays && (err != nil || n.phase() != Committed) {
			t.Errorf("%s: phase %s, %v", name, n.phase(), err)
		}
		if !c.stays && (err == nil || n.phase() != Fresh || n.count("kubeadm reset") != 1 || n.count("kubeadm init --skip-phases preflight,certs") != 0 || !strings.Contains(a.status.Cause, "another first master has made this cluster")) {
			t.Errorf("%s: phase %s, %v, ran %q", name, n.phase(), err, n.calls)
		}
	}
}

// TestRefusedMasterCanJoin gives the second first master the config of one that joins.
func TestRefusedMasterCanJoin(t *testing.T) {
	n, c := first(t, "uid-5")
	other := newAPI(t, c, "uid-1")
	other.publish()
	n.net.set(virtualEndpoint, other.address())
	if _, err := n.boot(); err == nil {
		t.Fatal("it did not stop")
	}
	data, err := os.ReadFile(filepath.Join(n.creds, config.Credential))
	if err != nil {
		t.Fatal(err)
	}
	n.put("seed.yaml", string(data)+"joins: true\n")
	n.put("dev/disk/by-label/IMGBUILD", "")
	n.own = "10.0.0.11"
	peer := newEtcd(t, c, member("1", "m1", "10.0.0.10"))
	n.net.set("10.0.0.10:2379", peer.Listener.Addr().String())
	if said, err := n.boot(); err != nil || n.phase() != Committed || n.count("kubeadm join --skip") != 3 {
		t.Errorf("phase %s, %v\n%s", n.phase(), err, said)
	}
}

func TestStrangerAtTheEndpointIsWaitedOut(t *testing.T) {
	n, _ := first(t, "uid-5")
	_, stranger := sample(t, config.Master)
	n.net.set(virtualEndpoint, newAPI(t, stranger, "uid-1").address())
	if said, err := n.bootUntil("this cluster's CA did not sign"); !errors.Is(err, context.Canceled) || n.count("kubeadm") != 0 {
		t.Errorf("%v, ran %q\n%s", err, n.calls, said)
	}
}

func TestKubeadmConfigOfAJoiningMaster(t *testing.T) {
	_, c := sampleOf(t, virtualEndpoint, "master-join.yaml", threeMasters...)
	c.NodeIP = "10.0.0.11"
	text, err := KubeadmConfig(config.Facts{KubernetesVersion: "1.37.2", Patches: true}, c, "m2")
	for _, want := range []string{"kind: JoinConfiguration", "controlPlane:\n  localAPIEndpoint:\n    advertiseAddress: \"10.0.0.11\"\n", "{name: node-ip, value: \"10.0.0.11\"}", "caCertHashes", "patches:\n  directory: /etc/kubeadm/patches\n"} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%v, %q is missing in\n%s", err, want, text)
		}
	}
}

// TestKeepalivedTakesItsConfig asks the real keepalived.
func TestKeepalivedTakesItsConfig(t *testing.T) {
	text, err := keepalivedConfig("10.0.0.100", "10.0.0.11", linkForTest(t), threeMasters)
	if err != nil {
		t.Fatal(err)
	}
	var peers []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "10.") || strings.HasPrefix(line, "priority") {
			peers = append(peers, line)
		}
	}
	if diff := cmp.Diff([]string{"priority 99", "10.0.0.10", "10.0.0.12", "10.0.0.100/32"}, peers); diff != "" {
		t.Error(diff)
	}
	if _, err := run.Look("keepalived"); err != nil {
		t.Skip("the host has no keepalived")
	}
	six, err := keepalivedConfig("fd00::100", "fd00::11", linkForTest(t), []string{"fd00::11", "fd00::12"})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(text string) error {
		file := filepath.Join(t.TempDir(), "keepalived.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return run.Run(t.Context(), run.Cmd{Name: "keepalived", Args: []string{"--config-test", "--vrrp", "--use-file", file}, Quiet: true})
	}
	for name, text := range map[string]string{"three": text, "IPv6": six} {
		// The program that it asks is not on this host.
		if err := judge(strings.ReplaceAll(text, "/usr/lib/imgbuild/imgbuild-firstboot livez", "/usr/bin/true")); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if judge(strings.ReplaceAll(text, "state BACKUP", "state KING")) == nil {
		t.Error("keepalived takes anything: it judges nothing")
	}
}

// linkForTest is a link of this host that keepalived would take.
func linkForTest(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 {
			return i.Name
		}
	}
	t.Skip("the host has no link")
	return ""
}
