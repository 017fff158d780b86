package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/imgbuild/imgbuild/internal/node/identity"
)

const (
	criSocket = "unix:///run/containerd/containerd.sock"
	adminConf = "/etc/kubernetes/admin.conf"
)

// kubeadmFile is where kubeadm's configuration lies, in memory: it holds the token.
func (a *Agent) kubeadmFile() string { return a.path(RunDir, "kubeadm.yaml") }

// kubeadm runs kubeadm with the configuration; its output goes to the journal of
// the unit without the token.
func (a *Agent) kubeadm(ctx context.Context, args ...string) (string, error) {
	out, err := a.Runner.Run(ctx, "kubeadm", append(args, "--config", a.kubeadmFile())...)
	out = a.hide(out)
	name := strings.Join(slices.DeleteFunc(slices.Clone(args), func(s string) bool { return strings.Contains(s, ",") || strings.HasPrefix(s, "-") }), "-")
	if werr := writeDurably(a.path(StateDir, "kubeadm-"+name+".log"), []byte(out), 0o600); werr != nil && err == nil {
		err = werr
	}
	if err != nil {
		return out, fmt.Errorf("kubeadm %s: %w: %s", args[0], err, cause(out))
	}
	return out, nil
}

// cause picks the lines of kubeadm's output that say what is wrong.
func cause(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.Contains(line, "[ERROR") || strings.HasPrefix(line, "error") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return lastLine(out)
	}
	return strings.Join(lines, "; ")
}

// preflight writes kubeadm's configuration, which every later phase reads too, runs
// its checks and keeps their warnings in the status. A node that is beyond them is
// not checked again: its own ports would be in the way.
func (a *Agent) preflight(ctx context.Context, verb string) error {
	text, err := KubeadmConfig(a.facts, a.config, a.journal.Hostname)
	if err != nil {
		return err
	}
	if err := writeDurably(a.kubeadmFile(), []byte(text), 0o600); err != nil {
		return err
	}
	if a.journal.Phase != Fresh {
		return nil
	}
	out, err := a.kubeadm(ctx, verb, "phase", "preflight")
	a.status.Warnings = []string{}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "[WARNING") {
			a.status.Warnings = append(a.status.Warnings, strings.TrimSpace(line))
		}
	}
	return err
}

// placePKI puts the prepared authorities where kubeadm looks; it makes the rest.
func (a *Agent) placePKI(context.Context) error {
	pub, err := identity.ServiceAccountPublicKey(a.config.PKI.ServiceAccountKey)
	if err != nil {
		return err
	}
	k := a.config.PKI
	for _, f := range []struct {
		name, text string
		perm       os.FileMode
	}{
		{"ca.crt", a.config.CACert, 0o644}, {"ca.key", k.CAKey.Reveal(), 0o600},
		{"front-proxy-ca.crt", k.FrontProxyCACert, 0o644}, {"front-proxy-ca.key", k.FrontProxyCAKey.Reveal(), 0o600},
		{"etcd/ca.crt", k.EtcdCACert, 0o644}, {"etcd/ca.key", k.EtcdCAKey.Reveal(), 0o600},
		{"sa.key", k.ServiceAccountKey.Reveal(), 0o600}, {"sa.pub", pub, 0o644},
	} {
		if err := writeDurably(a.path("/etc/kubernetes/pki", f.name), []byte(f.text), f.perm); err != nil {
			return err
		}
	}
	return nil
}

func (a *Agent) preflightInit(ctx context.Context) error { return a.preflight(ctx, "init") }

// clusterPhases come once the control plane answers; each makes or updates
// objects in it, so they can be run again.
const clusterPhases = "upload-config,upload-certs,mark-control-plane,bootstrap-token,kubelet-finalize,addon,show-join-command"

// nodePhases are those before.
const nodePhases = "preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane"

// initControlPlane brings etcd and the control plane up on this node alone.
func (a *Agent) initControlPlane(ctx context.Context) error {
	if a.journal.Phase == Published {
		return a.resumeControlPlane(ctx)
	}
	if err := a.record(Dirty); err != nil {
		return err
	}
	if err := a.allowKubelet(); err != nil {
		return err
	}
	_, err := a.kubeadm(ctx, "init", "--skip-phases", "preflight,"+clusterPhases)
	return err
}

// resumeControlPlane starts what an earlier try made and waits for its API.
func (a *Agent) resumeControlPlane(ctx context.Context) error {
	if err := a.startKubelet(ctx); err != nil {
		return err
	}
	return a.waitFor(ctx, func(ctx context.Context) error {
		if out, err := a.Runner.Run(ctx, "kubectl", "--kubeconfig", a.path(adminConf), "get", "--raw", "/readyz"); err != nil {
			return fmt.Errorf("the control plane does not answer yet: %s", lastLine(out))
		}
		return nil
	})
}

// initCluster publishes the cluster. The journal says so first: from here on
// nothing is wiped.
func (a *Agent) initCluster(ctx context.Context) error {
	if a.journal.Phase != Published {
		if err := syncFS(a.path("/var")); err != nil {
			return err
		}
		if err := a.record(Published); err != nil {
			return err
		}
	}
	_, err := a.kubeadm(ctx, "init", "--skip-phases", nodePhases+",upload-certs,show-join-command")
	return err
}

// applyNetwork gives the cluster its pod network, if the image has one. A manifest
// of the user's own is applied as it is, and by the server: a client's note of
// what it applied has no room for large custom resource definitions.
func (a *Agent) applyNetwork(ctx context.Context) error {
	if a.facts.CNI == "none" {
		return nil
	}
	manifest := a.path("/etc/imgbuild/manifests", a.facts.CNI+".yaml")
	args := []string{"--kubeconfig", a.path(adminConf), "apply"}
	if a.facts.CNI == "flannel" {
		filled, err := a.fillManifest(manifest)
		if err != nil {
			return err
		}
		manifest = filled
	} else {
		args = append(args, "--server-side", "--force-conflicts")
	}
	out, err := a.Runner.Run(ctx, "kubectl", append(args, "-f", manifest)...)
	if err != nil {
		return fmt.Errorf("applying %s: %w: %s", manifest, err, lastLine(out))
	}
	return nil
}

// fillManifest puts the cluster's endpoint into a manifest and returns the copy.
func (a *Agent) fillManifest(file string) (string, error) {
	text, err := os.ReadFile(file) // #nosec G304 -- a file of the image
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(a.config.Endpoint)
	if err != nil {
		return "", err
	}
	filled := a.path(RunDir, "network.yaml")
	return filled, writeDurably(filled, []byte(strings.NewReplacer("@API_HOST@", host, "@API_PORT@", port).Replace(string(text))), 0o600)
}

// placeKubeconfig gives root the administrator's kubeconfig.
func (a *Agent) placeKubeconfig(context.Context) error {
	data, err := os.ReadFile(a.path(adminConf))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.path("/root/.kube"), 0o700); err != nil {
		return err
	}
	return writeDurably(a.path("/root/.kube/config"), data, 0o600)
}

func (a *Agent) preflightJoin(ctx context.Context) error { return a.preflight(ctx, "join") }

// A master's join in three. Its etcd becomes a member before the rest of its control
// plane is there: in kubeadm's own order that starts first, finds no etcd, and ends and
// starts again on the processors that etcd needs. And before that, all that this etcd is
// started with is on the disk: once it votes, a cluster of two cannot do without it, so
// that after a power cut it has to start again from what is there.
const (
	kubeletFirst = "preflight,control-plane-prepare/control-plane,etcd-join,kubelet-wait-bootstrap,control-plane-join,wait-control-plane"
	etcdNext     = "preflight,control-plane-prepare,check-etcd,kubelet-start,kubelet-wait-bootstrap,control-plane-join,wait-control-plane"
	etcdDone     = "preflight,control-plane-prepare/download-certs,control-plane-prepare/certs,control-plane-prepare/kubeconfig,check-etcd,kubelet-start,etcd-join"
)

func (a *Agent) join(ctx context.Context) error {
	if err := a.record(Dirty); err != nil {
		return err
	}
	if err := a.allowKubelet(); err != nil {
		return err
	}
	left := "preflight"
	if a.config.Joins {
		if err := a.joinEtcd(ctx); err != nil {
			return err
		}
		left = etcdDone
	}
	_, err := a.kubeadm(ctx, "join", "--skip-phases", left)
	return err
}

// joinEtcd makes this machine's etcd a member.
func (a *Agent) joinEtcd(ctx context.Context) error {
	if err := a.placeKubelet(); err != nil {
		return err
	}
	if _, err := a.kubeadm(ctx, "join", "--skip-phases", kubeletFirst); err != nil {
		return err
	}
	manifests := a.path("/etc/kubernetes/manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil { // #nosec G301 -- as kubeadm makes it
		return err
	}
	if err := writeThrough(manifests); err != nil { // etcd's comes with its membership
		return err
	}
	if err := a.syncState(); err != nil {
		return err
	}
	_, err := a.kubeadm(ctx, "join", "--skip-phases", etcdNext)
	return err
}

// commit makes the node a member for good, once all that makes it one is on the disk.
func (a *Agent) commit(ctx context.Context) error {
	if err := a.syncState(); err != nil {
		return err
	}
	a.journal.Note = a.newNote(Committed)
	if err := a.record(Committed); err != nil {
		return err
	}
	if err := os.Remove(a.kubeadmFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.say("kubeadm's configuration is in memory until the next boot: %v", err)
	}
	a.save() // a member from here on, whether the note below comes about or not
	a.forget()
	a.tellRest(ctx)
	return ctx.Err()
}

// syncState puts all on the disk that makes this machine a member.
func (a *Agent) syncState() error {
	for _, dir := range []string{"/etc/kubernetes", "/var/lib/kubelet", "/var"} {
		if err := syncFS(a.path(dir)); err != nil {
			return err
		}
	}
	return nil
}
