// Package ha boots three masters and a worker on one network, with an address that
// the masters hold among themselves, and takes the one away that holds it.
package ha

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/etcd"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/test/kit"
)

// The virtual address, and the machines' own.
const virtualIP = "10.0.0.100"

var addresses = map[string]string{"m1": "10.0.0.10", "m2": "10.0.0.11", "m3": "10.0.0.12", "w1": "10.0.0.20"}

// yields are nice(2) levels: four machines share two cores, and kubeadm gives etcd two
// seconds to answer. The worker lets the masters go first.
var yields = map[string]int{"m1": 0, "m2": 0, "m3": 0, "w1": 15}

// limit is how long one stage may take on emulated processors.
const limit = 30 * time.Minute

// site is the machines, their network, and who asks from outside.
type site struct {
	*kit.Site
	t        *testing.T
	images   map[string]string
	api      *kit.API
	etcd     etcd.Client
	machines map[string]*boottest.Machine
}

func TestThreeMasters(t *testing.T) {
	if testing.Short() {
		t.Skip("boots four machines: left out by -short")
	}
	s := newSite(t)

	s.boot("m2", identity.MasterJoinFile, boottest.Seed) // before the first: it waits
	s.until("m2 waits for the first master", func(ctx context.Context) error {
		_, err := s.machines["m2"].Sh(ctx, "grep -q 'does not answer' /run/imgbuild/status.json")
		return err
	})
	s.boot("m1", identity.MasterFile, "smbios")
	s.until("the API answers at the virtual address", s.answers)
	s.until("two masters Ready", s.ready(2, 0))
	s.boot("m3", identity.MasterFile, "smbios") // another first one, by mistake
	kit.Must(t, s.machines["m3"].Yield(t.Context(), 10))
	second := s.stopped("m1", "m3")
	s.boot("w1", identity.WorkerFile, "smbios")
	kit.Must(t, s.machines[second].Give(t.Context(), s.Config(t, identity.MasterJoinFile))) // what its console says to do
	s.Told(s.t, "%s gets the node config of a master that joins", second)
	s.until("m1, m2, m3 and w1 Ready", s.ready(3, 1))
	s.until("three healthy etcd members", s.etcdHealthy("m1", "m2", "m3"))

	dead := s.holder()
	kit.Must(t, s.machines[dead].Kill())
	s.Told(s.t, "%s, which holds the address, is killed", dead)
	s.until("the API answers at the same address", s.answers)
	s.until("a new pod runs on the worker", s.newPodRuns("after"))
	if now := s.holder(); now == dead {
		t.Errorf("%s is dead and holds the address", dead)
	}

	s.boot(dead, "", "") // a member needs no node config any more
	s.until(dead+" is back: three healthy etcd members", s.etcdHealthy("m1", "m2", "m3"))
	s.until("all four Ready", s.ready(3, 1))
	s.until("one machine holds the address", func(context.Context) error {
		if holders := s.holders(); len(holders) != 1 {
			return fmt.Errorf("%v hold it", holders)
		}
		return nil
	})
}

// TestTwoFirstMasters powers two first masters on together: one cluster comes of it.
func TestTwoFirstMasters(t *testing.T) {
	if testing.Short() {
		t.Skip("boots two machines: left out by -short")
	}
	s := newSite(t)
	s.boot("m1", identity.MasterFile, "smbios")
	s.boot("m3", identity.MasterFile, "smbios")
	s.until("the API answers at the virtual address", s.answers)
	s.stopped("m1", "m3")
	s.until("one master Ready", s.ready(1, 0))
}

func newSite(t *testing.T) *site {
	ctx := t.Context()
	s := &site{Site: kit.NewSite(t), t: t, images: map[string]string{}, machines: map[string]*boottest.Machine{}}
	s.Slow(t, 0.25) // four machines on two emulated processors
	t.Cleanup(func() { t.Logf("timeline\n%s", s.Timeline()) })
	folder := filepath.Join(s.Dir, "cluster")
	_, err := s.Imgbuild(ctx, "cluster", "new", "ha", "--endpoint", virtualIP+":6443", "--dir", folder,
		"--vip", "--masters", strings.Join([]string{addresses["m1"], addresses["m2"], addresses["m3"]}, ","))
	kit.Must(t, err)
	for _, role := range []string{"master", "worker"} {
		s.images[role], err = s.Image(ctx, role, "raw", "-f", "rarely.yaml", "--set", "kubernetes.etcdElectionTimeout=15s") // machines that stall for seconds are alive
		kit.Must(t, err)
	}
	c, err := identity.Load(folder)
	kit.Must(t, err)
	conf, err := identity.ClientTLS(c.PKI.EtcdCACert, c.PKI.EtcdCAKey, "test", "")
	kit.Must(t, err)
	s.api, err = s.NewAPI(ctx, kit.Dialer(s.Net), 20*time.Second)
	kit.Must(t, err)
	s.etcd = etcd.Client{HTTP: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: kit.Dialer(s.Net), TLSClientConfig: conf, DisableKeepAlives: true}}}
	return s
}

// boot powers a machine on; a second time it has the disk of the first.
func (s *site) boot(name, config, via string) {
	s.t.Helper()
	role, memory := "master", 3328
	if name == "w1" {
		role, memory = "worker", 2048
	}
	n := boottest.Node{Name: name, Image: s.images[role], Via: via, IP: addresses[name], Memory: memory, CPUs: 2}
	if config != "" {
		n.Config = s.Config(s.t, config)
	}
	s.machines[name] = s.Start(s.t, n)
	kit.Must(s.t, s.machines[name].Yield(s.t.Context(), yields[name]))
	s.Told(s.t, "%s is powered on", name)
}

// answers wants the API at the virtual address.
func (s *site) answers(ctx context.Context) error {
	_, err := s.api.List(ctx, "/api/v1/nodes")
	return err
}

// stopped wants one of two first masters to stop and say why, and the other not to.
func (s *site) stopped(names ...string) (out string) {
	s.t.Helper()
	s.until("one of two first masters stops", func(ctx context.Context) error {
		for _, name := range names {
			if cause, err := s.machines[name].Sh(ctx, `grep -E '"cause": .*(another first master has made this cluster|is initialised already)' /run/imgbuild/status.json`); err == nil {
				s.Told(s.t, "%s: %s", name, strings.TrimSpace(cause))
				out = name
				return nil
			}
		}
		return errors.New("none has stopped")
	})
	for _, name := range names {
		if _, err := s.machines[name].Sh(s.t.Context(), `grep -q '"stopped": "' /var/lib/imgbuild/firstboot/journal.json`); (err == nil) != (name == out) {
			s.t.Errorf("%s: %v; the one that stopped is %s", name, err, out)
		}
	}
	return out
}

// until asks every few seconds, gently, until what is so.
func (s *site) until(stage string, what func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	if err := s.api.Until(ctx, what); err != nil {
		for name, m := range s.machines {
			s.t.Logf("--- %s\n%s", name, m.Tail(40))
		}
		s.t.Fatalf("%s: %v", stage, err)
	}
	s.Told(s.t, "%s", stage)
}

// ready wants that many masters to be Ready, and at least that many workers.
func (s *site) ready(masters, workers int) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := s.api.List(ctx, "/api/v1/nodes")
		if err != nil {
			return err
		}
		ready := map[bool]int{}
		for _, n := range nodes {
			if _, master := n.Metadata.Labels["node-role.kubernetes.io/control-plane"]; n.Ready() {
				ready[master]++
			}
		}
		if ready[true] != masters || ready[false] < workers {
			return fmt.Errorf("%d masters and %d workers of %d nodes are Ready, want %d and %d", ready[true], ready[false], len(nodes), masters, workers)
		}
		return nil
	}
}

// etcdHealthy wants these machines to be etcd's members, all voters, each healthy.
func (s *site) etcdHealthy(machines ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range machines {
			members, err := s.etcd.Members(ctx, addresses[name])
			if err != nil {
				return err
			}
			var hosts []string
			for _, m := range members {
				if m.Voter() && m.Name != "" {
					hosts = append(hosts, m.Host())
				}
			}
			var want []string
			for _, m := range machines {
				want = append(want, addresses[m])
			}
			slices.Sort(hosts)
			if slices.Sort(want); !slices.Equal(hosts, want) || len(members) != len(want) {
				return fmt.Errorf("%s says the members are %v, want %v", name, hosts, want)
			}
			if err := kit.EtcdHealthy(ctx, s.etcd.HTTP, addresses[name]); err != nil {
				return err
			}
		}
		return nil
	}
}

// holders are the living masters that have the virtual address.
func (s *site) holders() (out []string) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	for _, name := range slices.Sorted(maps.Keys(s.machines)) {
		select {
		case <-s.machines[name].Done():
			continue
		default:
		}
		if _, err := s.machines[name].Sh(ctx, "ip -o address show | grep -qF ' "+virtualIP+"/'"); err == nil {
			out = append(out, name)
		}
	}
	return out
}

func (s *site) holder() string {
	s.t.Helper()
	holders := s.holders()
	if len(holders) != 1 {
		s.t.Fatalf("%v hold %s, want one machine", holders, virtualIP)
	}
	return holders[0]
}

// newPodRuns makes a pod of an image on board, and wants it Running on the worker.
func (s *site) newPodRuns(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		pods, err := s.api.List(ctx, "/api/v1/namespaces/kube-flannel/pods")
		if err != nil {
			return err
		}
		if len(pods) == 0 || len(pods[0].Spec.Containers) == 0 {
			return errors.New("no pod to take the image of")
		}
		err = s.api.Post(ctx, "/api/v1/namespaces/default/pods", map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"containers": []any{map[string]any{"name": "a", "image": pods[0].Spec.Containers[0].Image, "imagePullPolicy": "Never",
				"command": []string{"/opt/bin/flanneld", "--version"}}}, "restartPolicy": "OnFailure"}})
		if err != nil {
			return err
		}
		var pod kit.Object
		if err := s.api.Get(ctx, "/api/v1/namespaces/default/pods/"+name, &pod); err != nil {
			return err
		}
		if phase := pod.Status.Phase; phase != "Running" && phase != "Succeeded" || !strings.HasPrefix(pod.Spec.NodeName, "worker-") {
			return fmt.Errorf("the pod is %s on %q", phase, pod.Spec.NodeName)
		}
		return nil
	}
}
