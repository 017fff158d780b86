package firstboot

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/etcd"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// link is one address of this machine, and the name of the link that has it.
type link struct{ name, address string }

// machineLinks are the addresses that this machine has now.
func machineLinks() ([]link, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []link
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // the link has just gone
		}
		for _, addr := range addrs {
			if ip, _, err := net.ParseCIDR(addr.String()); err == nil {
				out = append(out, link{i.Name, ip.String()})
			}
		}
	}
	return out, nil
}

// findAddress waits until this machine has an address, and settles which of the
// masters' addresses is its own, where the node config lists them: kubelet, API and
// etcd are told that one, so that none of them ever takes the virtual address for it.
func (a *Agent) findAddress(ctx context.Context) error {
	if a.config.NodeIP != "" {
		return nil
	}
	if a.config.Role == config.Master && len(a.config.Masters) == 0 { // else kubeadm would choose by a rule of its own
		defer func() {
			if address := a.address(); address != noAddress {
				a.config.NodeIP = address
			}
		}()
	}
	return a.waitFor(ctx, func(context.Context) error {
		links, err := a.links()
		if err != nil {
			return err
		}
		var have []string
		for _, l := range links {
			if slices.ContainsFunc(a.config.Masters, func(m string) bool { return net.ParseIP(m).Equal(net.ParseIP(l.address)) }) {
				a.config.NodeIP = l.address
				return nil
			}
			if net.ParseIP(l.address).IsGlobalUnicast() {
				have = append(have, l.address)
			}
		}
		switch {
		case len(have) == 0:
			return &fault{"look at the network: is it plugged in, does DHCP answer?", errors.New("this machine has no address yet")}
		case len(a.config.Masters) == 0:
			return nil
		}
		return &fault{"look at the network, or put this machine's address into masters of every master's node config",
			fmt.Errorf("this machine has none of the masters' addresses (%s): it has %s", strings.Join(a.config.Masters, ", "), strings.Join(have, ", "))}
	})
}

// client talks TLS to other machines of the cluster; each question is a connection
// of its own where fresh is set.
func (a *Agent) client(conf *tls.Config, fresh bool) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: a.dial, TLSClientConfig: conf, DisableKeepAlives: fresh, TLSHandshakeTimeout: 10 * time.Second}}
}

// adminClient asks the API as an administrator; only a master can make one. The
// caller closes its idle connections.
func (a *Agent) adminClient() (*http.Client, error) {
	conf, err := identity.ClientTLS(a.config.CACert, a.config.PKI.CAKey, "imgbuild-firstboot", "system:masters")
	if err != nil {
		return nil, err
	}
	return a.client(conf, false), nil
}

// get reads one object; found is false where the API has none.
func get(ctx context.Context, client *http.Client, url string, out any) (found bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	res, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	switch res.StatusCode {
	case http.StatusOK:
		return true, json.NewDecoder(io.LimitReader(res.Body, 16<<20)).Decode(out)
	case http.StatusNotFound:
		return false, nil
	}
	return false, fmt.Errorf("%s answers %s", req.URL.Host, res.Status)
}

// leaveEtcd takes the member of an unfinished join out of the cluster's etcd,
// before anything of it is wiped: as a ghost it would count for the quorum, and
// starting empty under its old id it would break.
func (a *Agent) leaveEtcd(ctx context.Context) error {
	if a.journal.Phase != Dirty {
		return nil
	}
	return a.freeMember(ctx, append(slices.Clone(a.config.Masters), strings.Fields(a.journal.Peers)...))
}

// checkEtcd wants no member of the cluster's etcd to have this machine's address
// before it joins: one can be left of a machine that had the address before. The
// other members go into the journal, to be asked should the join be cut short.
func (a *Agent) checkEtcd(ctx context.Context) error {
	if a.journal.Phase != Fresh {
		return nil
	}
	peers := slices.Clone(a.config.Masters)
	if len(peers) == 0 {
		err := a.waitFor(ctx, func(ctx context.Context) error {
			nodes, err := a.masterNodes(ctx)
			for _, n := range nodes {
				peers = append(peers, n.addresses...)
			}
			if err == nil && len(peers) == 0 {
				err = errors.New("no master of the cluster has an address yet")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := a.freeMember(ctx, peers); err != nil {
		return err
	}
	a.journal.Address = a.address()
	return a.record(a.journal.Phase)
}

// turn is how long masters that join wait for one that came before them.
const turn = 15 * time.Minute

// awaitTurn lets the masters that are on their way become Ready first: a control plane
// that starts takes what it can get, and etcd changes its members one by one. Who is not
// Ready a quarter of an hour after it came is not waited for, nor anybody where a
// person brings the pod network.
func (a *Agent) awaitTurn(ctx context.Context) error {
	if a.journal.Phase != Fresh || a.facts.CNI == "none" {
		return nil
	}
	seen := map[string]time.Time{} // by this clock, which may be behind the API's
	return a.waitFor(ctx, func(ctx context.Context) error {
		nodes, err := a.masterNodes(ctx)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if _, ok := seen[n.name]; !ok {
				seen[n.name] = repro.Now()
			}
			if seen[n.name].Before(n.came) {
				n.came = seen[n.name]
			}
			if end := n.came.Add(turn); !n.ready && n.name != a.journal.Hostname && repro.Now().Before(end) {
				return &fault{fmt.Sprintf("nothing: this one goes on when that one is Ready, or at %s", end.UTC().Format(time.RFC3339)),
					fmt.Errorf("the master %s is on its way, and not Ready yet", n.name)}
			}
		}
		return nil
	})
}

// masterNode is a master that the API knows.
type masterNode struct {
	name      string
	addresses []string
	came      time.Time
	ready     bool
}

// masterNodes asks the API, which knows one at least once the cluster is published.
func (a *Agent) masterNodes(ctx context.Context) ([]masterNode, error) {
	client, err := a.adminClient()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				CreationTimestamp time.Time
			}
			Status struct {
				Addresses  []struct{ Type, Address string }
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if _, err := get(ctx, client, "https://"+a.config.Endpoint+"/api/v1/nodes?labelSelector=node-role.kubernetes.io/control-plane", &list); err != nil {
		return nil, err
	}
	var out []masterNode
	for _, item := range list.Items {
		n := masterNode{name: item.Metadata.Name, came: item.Metadata.CreationTimestamp}
		for _, addr := range item.Status.Addresses {
			if addr.Type == "InternalIP" {
				n.addresses = append(n.addresses, addr.Address)
			}
		}
		for _, c := range item.Status.Conditions {
			n.ready = n.ready || c.Type == "Ready" && c.Status == "True"
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, errors.New("the cluster has no master yet")
	}
	return out, nil
}

// freeMember removes the etcd member that has this machine's address, through one
// of the peers, and returns when there is none. Without a peer that answers it
// waits: nothing may be wiped on a guess.
func (a *Agent) freeMember(ctx context.Context, peers []string) error {
	conf, err := identity.ClientTLS(a.config.PKI.EtcdCACert, a.config.PKI.EtcdCAKey, "imgbuild-firstboot", "")
	if err != nil {
		return err
	}
	client := etcd.Client{HTTP: a.client(conf, true)}
	peers = slices.DeleteFunc(peers, func(p string) bool { return p == a.address() })
	return a.waitFor(ctx, func(ctx context.Context) error {
		var errs []error
		for _, peer := range peers {
			members, err := client.Members(ctx, peer)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if i := slices.IndexFunc(members, a.isMine); i >= 0 {
				return a.removeMember(ctx, client, peer, members, members[i])
			}
			if i := slices.IndexFunc(members, func(m etcd.Member) bool { return m.Learner }); i >= 0 && a.journal.Phase == Fresh { // etcd takes one at a time
				return &fault{fmt.Sprintf("nothing, while that master joins; if it is gone for good, `etcdctl member remove %s` on another one", members[i].ID),
					fmt.Errorf("the master at %s is about to become a member of etcd", members[i].Host())}
			}
			a.keepPeers(members)
			return nil
		}
		if a.etcdLeft() {
			if err := a.startKubelet(ctx); err != nil {
				return err
			}
		}
		return &fault{"bring another master up, or wipe this machine's disk and remove its etcd member by hand (`etcdctl member remove`)",
			fmt.Errorf("no other master's etcd can be asked whether this machine is a member: %w", errors.Join(errs...))}
	})
}

// etcdLeft says whether an unfinished join has left an etcd that can run. A master that starts
// serves nobody until it has a quorum, which may take this very machine, and so cannot be asked.
func (a *Agent) etcdLeft() bool {
	manifest, err := os.Stat(a.path("/etc/kubernetes/manifests/etcd.yaml"))
	if err != nil || manifest.Size() == 0 || a.journal.Phase != Dirty {
		return false
	}
	_, err = os.Stat(a.path("/var/lib/etcd/member"))
	return err == nil
}

// isMine says whether a member is this machine's: it has its address, or the one
// that it had when it began to join, unless that is another machine's by now.
func (a *Agent) isMine(m etcd.Member) bool {
	had := a.journal.Phase == Dirty && m.At(a.journal.Address) && (m.Name == "" || m.Name == a.journal.Hostname)
	return had || m.At(a.address())
}

// removeMember is one try. Where the others have no quorum without this very machine, what
// the unfinished join has left is let run until it is through: at once where there are too
// few of them, else when it fails.
func (a *Agent) removeMember(ctx context.Context, client etcd.Client, peer string, members []etcd.Member, m etcd.Member) error {
	voters := 0
	for _, other := range members {
		if other.Voter() {
			voters++
		}
	}
	left := a.journal.Phase == Dirty && m.Voter() // something to run
	few := voters-1 < voters/2+1
	if left && few {
		if err := a.startKubelet(ctx); err != nil {
			return err
		}
	}
	err := client.Remove(ctx, peer, m.ID)
	if err == nil {
		return fmt.Errorf("etcd member %s of this machine is removed through %s", m.ID, peer)
	}
	if left && !few {
		if err := a.startKubelet(ctx); err != nil {
			return err
		}
	}
	return &fault{"the other masters' etcd needs a quorum: bring them up", fmt.Errorf("etcd member %s of this machine cannot be removed through %s yet: %w", m.ID, peer, err)}
}

func (a *Agent) keepPeers(members []etcd.Member) {
	var hosts []string
	for _, m := range members {
		hosts = append(hosts, m.Host())
	}
	a.journal.Peers = strings.Join(hosts, " ")
}
