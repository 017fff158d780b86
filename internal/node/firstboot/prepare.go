package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// readConfig finds the node config: node.yaml on a seed disk, which a person can
// attach to a machine that runs, else the systemd credential. Until one is there
// it waits.
func (a *Agent) readConfig(ctx context.Context) error {
	var data []byte
	err := a.waitFor(ctx, func(ctx context.Context) (err error) {
		data, err = a.findConfig(ctx)
		return err
	})
	if err != nil {
		return err
	}
	a.changed = false // this is the newer one, whether it can be read or not
	c, err := config.Parse(data)
	if err != nil {
		return &fault{"give the machine a right node config (`imgbuild cluster new` writes one)", err}
	}
	if c.Role != a.facts.Role {
		return &fault{"boot the image of the config's role, or give it the config of the image's role",
			fmt.Errorf("this is a %s's image, the node config is a %s's", a.facts.Role, c.Role)}
	}
	a.config, a.sum = c, sum(data)
	return nil
}

// mayFollow says whether this node config may go on with what another one has begun. What
// others may count on, a published cluster or a member of their etcd, is ended by no config
// that was taken for the right one.
func (a *Agent) mayFollow(context.Context) error {
	ca, err := config.ParseCert(a.config.CACert)
	if err != nil {
		return err
	}
	cluster := sum(ca.Raw)
	had, joins, cure := "", false, ""
	switch {
	case a.journal.Phase == Published:
		had, cure = "has published a cluster", "the first master's node config of that cluster (master.yaml)"
	case a.journal.Phase == Dirty && a.journal.Peers != "":
		had, joins, cure = "may be a member of a cluster's etcd", true, "the node config of a master that joins that cluster (master-join.yaml)"
	default:
		if a.journal.Phase == Fresh {
			a.journal.Peers = ""
		}
		a.journal.Cluster = cluster
		return nil
	}
	what := "another cluster's"
	switch {
	case a.journal.Cluster != "" && a.journal.Cluster != cluster:
	case a.config.Joins != joins && joins:
		what = "a first master's"
	case a.config.Joins != joins:
		what = "that of a master that joins"
	default:
		return nil
	}
	return &fault{"give the machine " + cure + ", or an empty disk", fmt.Errorf("this machine %s, and the node config is %s", had, what)}
}

func (a *Agent) findConfig(ctx context.Context) ([]byte, error) {
	device := a.path("/dev/disk/by-label", config.SeedLabel)
	if _, err := os.Stat(device); err == nil {
		return a.readSeed(ctx, device)
	}
	data, err := os.ReadFile(filepath.Join(a.Credential, config.Credential)) // #nosec G304 -- systemd's folder
	if a.Credential == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, &fault{"pass the credential " + config.Credential + ", or attach a disk labelled " + config.SeedLabel, errors.New("no node config yet")}
	}
	return data, err
}

func (a *Agent) readSeed(ctx context.Context, device string) ([]byte, error) {
	dir := a.path(RunDir, "seed")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if out, err := a.Runner.Run(ctx, "mount", "-o", "ro,nosuid,nodev,noexec", device, dir); err != nil {
		return nil, fmt.Errorf("mounting the seed disk: %w: %s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, config.SeedFile)) // #nosec G304 -- the seed disk
	if out, uerr := a.Runner.Run(ctx, "umount", dir); uerr != nil && err == nil {
		return nil, fmt.Errorf("unmounting the seed disk: %w: %s", uerr, out)
	}
	return data, err
}

// Identity is keepMachineID alone, for nodes that somebody else makes members.
func (a *Agent) Identity(ctx context.Context) error { return a.keepMachineID(ctx) }

// keepMachineID stores the id that systemd made at the very first boot, where the
// initrd finds it.
func (a *Agent) keepMachineID(context.Context) error {
	id, err := readLine(a.path("/etc/machine-id"))
	if err != nil {
		return err
	}
	kept := a.path(EtcState, "machine-id")
	if old, err := readLine(kept); err == nil && old == id {
		return nil
	}
	if len(id) != 32 {
		return fmt.Errorf("/etc/machine-id holds %q, want 32 hex digits", id)
	}
	return writeDurably(kept, []byte(id+"\n"), 0o444)
}

// setHostname gives the machine its name, which the journal keeps: a member's
// name must not change.
func (a *Agent) setHostname(ctx context.Context) error {
	name := a.journal.Hostname
	if a.journal.Phase == Fresh || name == "" {
		id, err := readLine(a.path("/etc/machine-id"))
		if err != nil || len(id) < 8 {
			return fmt.Errorf("reading /etc/machine-id: %q, %w", id, err)
		}
		if name = a.config.Hostname; name == "" {
			name = a.config.Role + "-" + id[:8]
		}
	}
	if out, err := a.Runner.Run(ctx, "hostnamectl", "set-hostname", "--static", "--transient", name); err != nil {
		return fmt.Errorf("setting the host name: %w: %s", err, out)
	}
	a.journal.Hostname, a.status.Hostname = name, name
	return a.writeHosts(name)
}

// writeHosts makes the machine's name resolve without any server, to the address
// that other nodes see. /etc is the image's again at each boot, so each boot does it.
func (a *Agent) writeHosts(name string) error {
	file := a.path("/etc/hosts")
	old, err := os.ReadFile(file) // #nosec G304 -- a fixed path of the node
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	const mark = " # this node"
	var text strings.Builder
	for line := range strings.Lines(string(old)) {
		if !strings.HasSuffix(strings.TrimSpace(line), strings.TrimSpace(mark)) {
			text.WriteString(line)
		}
	}
	fmt.Fprintf(&text, "%s %s%s\n", a.address(), name, mark)
	return writeDurably(file, []byte(text.String()), 0o644)
}

// address is the node's own address: the configured one, or the one that packets
// to other networks leave from. 192.0.2.1 is TEST-NET-1: no packet is sent.
func (a *Agent) address() string {
	if a.config != nil && a.config.NodeIP != "" {
		return a.config.NodeIP
	}
	if a.config == nil && a.journal.Address != "" { // a member's own, beside which there may be a virtual one
		return a.journal.Address
	}
	conn, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return noAddress
	}
	defer conn.Close() //nolint:errcheck // nothing was sent
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return noAddress
	}
	return host
}

// noAddress stands for the node in /etc/hosts while it has none.
const noAddress = "127.0.1.1"

func (a *Agent) placeSSHKeys(context.Context) error {
	file := a.path(EtcState, "ssh/authorized_keys.d/root")
	if len(a.config.SSHAuthorizedKeys) == 0 {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return writeDurably(file, []byte(strings.Join(a.config.SSHAuthorizedKeys, "\n")+"\n"), 0o600)
}

// waitForTime waits for a clock that lies within the CA's validity: certificates
// made on another clock would not be believed.
func (a *Agent) waitForTime(ctx context.Context) error {
	ca, err := config.ParseCert(a.config.CACert)
	if err != nil {
		return err
	}
	from := repro.Now().UTC().Format(time.RFC3339) // what is said stays the same while it waits
	return a.waitFor(ctx, func(context.Context) error {
		now := repro.Now()
		switch {
		case now.Before(ca.NotBefore):
			return &fault{"check the machine's clock and its time servers", fmt.Errorf("the clock said %s, the cluster's CA begins at %s", from, ca.NotBefore.Format(time.RFC3339))}
		case now.After(ca.NotAfter):
			return &fault{"check the machine's clock, or make a new identity", fmt.Errorf("the clock said %s, the cluster's CA ended at %s", from, ca.NotAfter.Format(time.RFC3339))}
		}
		return nil
	})
}

func (a *Agent) waitForRuntime(ctx context.Context) error {
	return a.waitFor(ctx, func(ctx context.Context) error {
		if out, err := a.Runner.Run(ctx, "crictl", "info"); err != nil {
			return fmt.Errorf("containerd does not answer yet: %s", lastLine(out))
		}
		return nil
	})
}

// wipe takes away what a broken try left, only ever before others could know of it.
func (a *Agent) wipe(ctx context.Context) error {
	if a.journal.Phase != Dirty {
		return nil
	}
	_ = os.Remove(a.path(RunDir, kubeletFlag))
	if err := a.stopPods(ctx); err != nil {
		return err
	}
	// Without a kubeconfig it asks no API server for what these phases have no use for: a dead one costs ten seconds.
	if out, err := a.Runner.Run(ctx, "kubeadm", "reset", "--force", "--skip-phases", "remove-etcd-member", "--kubeconfig", os.DevNull, "--cri-socket", criSocket); err != nil {
		return fmt.Errorf("kubeadm reset: %w: %s", err, lastLine(out))
	}
	// kubeadm leaves some of these behind where its own files were torn.
	for _, dir := range []string{"/etc/kubernetes", "/etc/cni/net.d", "/var/lib/etcd", "/var/lib/kubelet"} {
		if err := empty(a.path(dir)); err != nil {
			return fmt.Errorf("wiping %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(a.path("/etc/kubernetes/manifests"), 0o755); err != nil { // #nosec G301 -- as kubeadm makes it
		return err
	}
	return a.record(Fresh)
}

// podID is a line of crictl's that names a pod; it may have warnings beside them.
var podID = regexp.MustCompile(`(?m)^[0-9a-f]{12,64}$`)

// stopPods ends the kubelet and the pods of a broken try. kubeadm's own reset, which comes
// next, gives the runtime two seconds for each, again and again, and goes on where they are
// too few; a control plane that lives on would be in the way of every later try.
func (a *Agent) stopPods(ctx context.Context) error {
	if out, err := a.Runner.Run(ctx, "systemctl", "stop", "kubelet.service"); err != nil {
		return fmt.Errorf("stopping the kubelet of the broken try: %w: %s", err, lastLine(out))
	}
	if out, err := a.Runner.Run(ctx, "crictl", "--timeout", "2m", "rmp", "--all", "--force"); err != nil {
		return fmt.Errorf("stopping the pods of the broken try: %w: %s", err, lastLine(out))
	}
	out, err := a.Runner.Run(ctx, "crictl", "--timeout", "2m", "pods", "--quiet")
	if err == nil && podID.MatchString(out) {
		err = errors.New("they are still there")
	}
	if err != nil {
		return fmt.Errorf("stopping the pods of the broken try: %w: %s", err, lastLine(out))
	}
	return nil
}

// empty removes what is in a folder, which may be a mount point itself.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func readLine(file string) (string, error) {
	data, err := os.ReadFile(file) // #nosec G304 -- fixed paths of the node
	return strings.TrimSpace(string(data)), err
}

// lastLine is the end of a program's output, on one line.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "; ")
}
