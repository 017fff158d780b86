// Package faults makes first boots bad: power cuts at any moment, networks, clocks,
// endpoints and tokens that are wrong and are mended later, slow and full disks. What
// must come of it is a node that is Ready, with no hand laid on it.
//
// BadDay has one of each kind in one cluster, which test/cluster goes on with. `make
// faults` cuts many times, can be stopped and goes on where it was, and writes
// docs/faults.md.
package faults

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/etcd"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vnet"
	"github.com/imgbuild/imgbuild/test/kit"
)

// The machines, and the endpoint, which is a load balancer on the gateway.
const (
	firstIP, joinIP, workerIP = kit.MasterIP, "10.0.0.12", kit.WorkerIP
	Endpoint                  = boottest.Gateway + ":6443"
)

// limit is how long one stage may take on emulated processors.
const limit = 25 * time.Minute

// site is one cluster's machines, their network, and what is wrong with it.
type site struct {
	*kit.Site
	t        *testing.T // that made it: machines live as long
	images   map[string]string
	each     func(*boottest.Node) // what all machines of a test have in common; nil: nothing
	folder   string               // of the identity
	id       *identity.Cluster
	api      *kit.API
	etcd     etcd.Client
	balancer *balancer
	clocks   *clocks
	settled  *boottest.Machine            // the first master, which is a member and stays; nil: none yet
	last     map[string]*boottest.Machine // by name: what was booted last, on or off
}

// newSite builds images and network; nothing runs yet.
func newSite(t *testing.T) *site {
	t.Helper()
	at, images := kit.NewSite(t), map[string]string{}
	_, err := at.Imgbuild(t.Context(), "cluster", "new", "faults", "--endpoint", Endpoint, "--dir", filepath.Join(at.Dir, "cluster"), "--masters", firstIP+","+joinIP)
	kit.Must(t, err)
	for _, role := range []string{"master", "worker"} {
		images[role], err = at.Image(t.Context(), role, "raw", "--set", "time.servers="+TimeServer)
		kit.Must(t, err)
	}
	return on(t, at, images)
}

// on makes a site's endpoint and clocks; its identity and images are there.
func on(t *testing.T, at *kit.Site, images map[string]string) *site {
	t.Helper()
	s := &site{Site: at, t: t, images: images, folder: filepath.Join(at.Dir, "cluster"), last: map[string]*boottest.Machine{}}
	_, err := s.Imgbuild(t.Context(), "cluster", "new", "other", "--endpoint", Endpoint, "--dir", s.folder+"-other")
	kit.Must(t, err)
	s.id, err = identity.Load(s.folder)
	kit.Must(t, err)
	other, err := identity.Load(s.folder + "-other")
	kit.Must(t, err)
	s.balancer, err = newBalancer(s.Net, s.id, other, firstIP+":6443")
	kit.Must(t, err)
	var host *vnet.Host
	s.clocks, host, err = newClocks(s.Socket, s.Now)
	kit.Must(t, err)
	t.Cleanup(func() { _ = host.Close() })
	s.api, err = s.NewAPI(t.Context(), kit.DialMaster(s.Net), 20*time.Second)
	kit.Must(t, err)
	conf, err := identity.ClientTLS(s.id.PKI.EtcdCACert, s.id.PKI.EtcdCAKey, "test", "")
	kit.Must(t, err)
	s.etcd = etcd.Client{HTTP: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: kit.Dialer(s.Net), TLSClientConfig: conf, DisableKeepAlives: true}}}
	return s
}

// machines are the roles that are booted: image, node config, address, memory.
var machines = map[string]boottest.Node{
	"master": {Name: "master", Image: "master", IP: firstIP, Memory: 3328, CPUs: 2},
	"second": {Name: "second", Image: "master", IP: joinIP, Memory: 3328, CPUs: 2},
	"worker": {Name: "worker", Image: "worker", IP: workerIP, Memory: 1792, CPUs: 2},
}

// yields are nice(2) levels: a worker that joins lets the master go first whose API server
// must answer its probes in time. A second master's first boot may be what the first one needs.
var yields = map[string]int{"master": 0, "second": 0, "worker": 5}

var configs = map[string]string{"master": identity.MasterFile, "second": identity.MasterJoinFile, "worker": identity.WorkerFile}

// boot powers a machine on; what is bad about it comes with how.
func (s *site) boot(t *testing.T, name string, how func(*boottest.Node)) *boottest.Machine {
	t.Helper()
	n := machines[name]
	n.Image, n.Config, n.Via = s.images[n.Image], s.Config(t, configs[name]), "smbios"
	for _, change := range []func(*boottest.Node){s.each, how} {
		if change != nil {
			change(&n)
		}
	}
	m := s.Start(s.t, n)
	s.last[name] = m
	kit.Must(t, m.Yield(s.t.Context(), yields[name]))
	return m
}

// says waits until a machine's status says that, and tells how long it took.
func (s *site) says(t *testing.T, m *boottest.Machine, what, said string) {
	t.Helper()
	from := repro.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	want := regexp.MustCompile(`(?m)^ *"(?:waiting|cause)": "(.*` + said + `.*)",$`)
	for {
		text, err := m.Sh(ctx, "cat /run/imgbuild/status.json")
		if found := want.FindStringSubmatch(text); found != nil {
			s.Told(t, "%s: %s says so after %.0f s: %s", what, m.Name, time.Since(from).Seconds(), found[1])
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s does not say %q: %s %v\n%s", what, m.Name, said, text, err, m.Tail(30))
		case <-time.After(time.Second):
		}
	}
}

// ready waits until the machine's own node has been Ready since it was started, and
// says itself that it is a member.
func (s *site) ready(t *testing.T, m *boottest.Machine, since time.Time) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	const committed = `grep -q '"phase": "committed"' /run/imgbuild/status.json && cat /proc/sys/kernel/hostname`
	name, err := m.Until(ctx, 3*time.Second, committed)
	if err != nil {
		return fmt.Errorf("%s does not become a member: %w\n%s", m.Name, err, m.Tail(40))
	}
	return s.api.Until(ctx, func(ctx context.Context) error {
		var node kit.Object
		if err := s.api.Get(ctx, "/api/v1/nodes/"+name, &node); err != nil {
			return err
		}
		if !node.Ready() || !node.Heard().After(since) {
			return fmt.Errorf("%s is not Ready", name)
		}
		if !strings.Contains(node.Metadata.Annotations[config.Annotation], string(firstboot.Committed)) {
			return fmt.Errorf("%s does not tell of its first boot", name)
		}
		return nil
	})
}

// whole is what no cut may break: nothing torn on the disk, the authority the same.
func (s *site) whole(ctx context.Context, m *boottest.Machine) error {
	script := "! find /etc/kubernetes /var/lib/imgbuild /var/lib/kubelet -maxdepth 3 -type f -size 0 ! -path '*/plugins/*' ! -name '*.lock' | grep . >&2 && test ! -e /run/imgbuild/kubeadm.yaml && cat /etc/kubernetes/pki/ca.crt"
	if m.Name != "worker" {
		script = "kubeadm certs check-expiration >/dev/null && " + script
	}
	ca, err := m.Sh(ctx, script)
	if err == nil && strings.TrimSpace(ca) != strings.TrimSpace(s.id.CACert) {
		err = errors.New("the authority on the disk is another one")
	}
	return err
}

// members wants these machines, and no others, to be etcd's healthy voters.
func (s *site) members(ctx context.Context, addresses ...string) error {
	var hosts []string
	members, err := s.etcd.Members(ctx, firstIP)
	for _, m := range members {
		if m.Voter() && m.Name != "" {
			hosts = append(hosts, m.Host())
		}
	}
	slices.Sort(hosts)
	if err == nil && (!slices.Equal(hosts, addresses) || len(members) != len(addresses)) {
		err = fmt.Errorf("etcd's members are %+v, want %v", members, addresses)
	}
	for _, a := range addresses {
		err = errors.Join(err, kit.EtcdHealthy(ctx, s.etcd.HTTP, a))
	}
	return err
}
