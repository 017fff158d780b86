package firstboot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// kubeletFlag lets kubelet.service start (its ConditionPathExists).
const kubeletFlag = "kubelet-may-start"

// placeKubelet gives a master's kubelet its certificate, which the master can sign
// itself, and its own API server to talk to, as kubeadm has it. Without, it would ask that
// server for one, which starts long after it, and end meanwhile.
func (a *Agent) placeKubelet() error {
	dir := "/var/lib/kubelet/pki"
	current := filepath.Join(dir, "kubelet-client-current.pem") // a link, as the kubelet's store of certificates wants it
	kubeconfig, pair, err := identity.Kubelet(a.config, a.journal.Hostname, "https://"+net.JoinHostPort(a.address(), "6443"), current)
	if err != nil {
		return err
	}
	if err := writeDurably(a.path(dir, "kubelet-client-first.pem"), []byte(pair.Reveal()), 0o600); err != nil {
		return err
	}
	if err := os.Symlink("kubelet-client-first.pem", a.path(current)); err != nil {
		return err
	}
	return writeDurably(a.path("/etc/kubernetes/kubelet.conf"), []byte(kubeconfig), 0o600)
}

// allowKubelet lifts the kubelet's gate; kubeadm starts the unit itself.
func (a *Agent) allowKubelet() error {
	flag := a.path(RunDir, kubeletFlag)
	if _, err := os.Stat(flag); errors.Is(err, fs.ErrNotExist) { // no kubelet has run since the boot
		if err := a.dropTorn(); err != nil {
			return err
		}
	}
	return writeDurably(flag, nil, 0o644)
}

// dropTorn removes the kubelet's serving certificate where a power cut has left less than
// the whole: the kubelet makes one where there is none, and ends where there is half of one.
func (a *Agent) dropTorn() error {
	pair := a.path("/var/lib/kubelet/pki/kubelet")
	if _, err := tls.LoadX509KeyPair(pair+".crt", pair+".key"); err == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(pair+".crt"), os.RemoveAll(pair+".key"))
}

// startKubelet lifts the gate and starts the unit, without waiting for it.
func (a *Agent) startKubelet(ctx context.Context) error {
	if err := a.allowKubelet(); err != nil {
		return err
	}
	if out, err := a.Runner.Run(ctx, "systemctl", "start", "--no-block", "kubelet.service"); err != nil {
		return fmt.Errorf("starting the kubelet: %w: %s", err, out)
	}
	return nil
}
