// Package firstboot is the agent that makes a booted image a member of its
// cluster: a journalled state machine around kubeadm. Before the cluster can be
// known to others it wipes and tries again; after, it only resumes; once the node
// is committed it never initialises, joins or resets again, whatever happens.
//
// It runs at every boot. It knows neither how the image was made nor any cloud.
package firstboot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Folders of the node.
const (
	StateDir = "/var/lib/imgbuild/firstboot"
	RunDir   = "/run/imgbuild"
	EtcState = "/var/lib/imgbuild/etc"
)

// maxAttempts is how often kubeadm may fail before the unit does.
const maxAttempts = 5

// Runner starts a program of the node; the output is both streams.
type Runner interface {
	Run(ctx context.Context, name string, args ...string) (output string, err error)
}

// Agent is one run. Root is "" on a node; tests put a folder there.
type Agent struct {
	Root       string
	Runner     Runner
	Console    io.Writer
	Credential string        // folder of systemd's credentials; empty: none
	Pause      time.Duration // between tries and polls; 0 for the default of 3 s

	facts   config.Facts
	config  *config.NodeConfig
	sum     string // of the config
	changed bool   // there is a newer config, which the next try takes
	journal Journal
	status  Status
	said    string // step, waiting and cause of the status that was written last

	// What tests replace.
	links func() ([]link, error)
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
}

// step is one thing that has to be done, in order. Done steps are done again
// after a restart, so each bears that.
type step struct {
	name string
	cure string
	run  func(*Agent, context.Context) error
}

// fault is an error with what a person can do about it.
type fault struct {
	cure string
	err  error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// Run does what the journal and the node config ask for. It returns when the node
// is committed, or with an error when it cannot become so.
func (a *Agent) Run(ctx context.Context) error {
	if a.Pause == 0 {
		a.Pause = 3 * time.Second
	}
	if a.links == nil {
		a.links = machineLinks
	}
	a.status.Warnings = []string{}
	var err error
	if a.journal, err = readJournal(a.path(StateDir, "journal.json")); err != nil {
		return a.fail("reading the journal", err)
	}
	if _, err := os.Stat(a.path("/etc/kubernetes/kubelet.conf")); err == nil && a.journal.Phase == Fresh {
		return a.fail("reading the journal", &fault{"give the machine an empty disk, or bring the journal back",
			errors.New("this disk holds a member of a cluster, but not the record of how it became one")})
	}
	if a.facts, err = config.ReadFacts(a.path(config.FactsFile)); err != nil {
		return a.fail("reading what the image is", err)
	}
	a.status.Phase, a.status.Role, a.status.Hostname, a.status.Attempt = a.journal.Phase, a.facts.Role, a.journal.Hostname, a.journal.Attempt
	if err := a.knowMachine(ctx); err != nil {
		err = a.fail("machine", err)
		a.banner()
		return err
	}
	if a.journal.Phase == Committed {
		return a.resumeCommitted(ctx)
	}
	for tries := 1; ; tries++ {
		if err = a.try(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		if a.changed {
			tries = 0
			continue
		}
		if tries >= maxAttempts || a.journal.Stopped != "" {
			a.banner()
			return err
		}
		wait := a.Pause << tries
		a.say("next try in %v", wait)
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// resumeCommitted is every boot but the first: the name, then the kubelet, and what
// the first had no time for.
func (a *Agent) resumeCommitted(ctx context.Context) error {
	for _, s := range []step{{"identity", "", (*Agent).keepMachineID}, {"hostname", "", (*Agent).setHostname}, {"kubelet", "", (*Agent).startKubelet}, {"virtual address", "", (*Agent).resumeVIP}} {
		a.status.Step = s.name
		if err := s.run(a, ctx); err != nil {
			return a.fail(s.name, err)
		}
	}
	a.forget()
	a.say("%s %s is a member of its cluster; nothing to do", a.facts.Role, a.journal.Hostname)
	a.tellRest(ctx)
	return nil
}

// try is one attempt: every step in order.
func (a *Agent) try(ctx context.Context) error {
	a.status.Step, a.status.Number = "node config", 0
	if err := a.readConfig(ctx); err != nil {
		return a.fail("node config", err)
	}
	if err := a.waitFor(ctx, a.mayFollow); err != nil {
		return a.fail("node config", err)
	}
	if a.journal.Config != a.sum {
		a.journal.Config, a.journal.Attempt, a.journal.Stopped = a.sum, 0, ""
	}
	if a.journal.Stopped != "" {
		return a.fail("one cluster", errors.Join(a.wipe(ctx), a.whyStopped()))
	}
	a.journal.Attempt++
	a.status.Attempt = a.journal.Attempt
	if err := a.record(a.journal.Phase); err != nil {
		return a.fail("journal", err)
	}
	todo := steps(a.config)
	for i, s := range todo {
		a.status.Number, a.status.Of = i+1, len(todo)
		a.status.Step, a.status.Waiting, a.status.Cause, a.status.Cure = s.name, "", "", ""
		a.say("%s: %s", a.config.Role, s.name)
		if err := s.run(a, ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var f *fault
			if s.cure != "" && !errors.As(err, &f) {
				err = &fault{s.cure, err}
			}
			err = a.fail(s.name, err)
			if a.journal.Phase == Published { // there is a cluster that may know the node
				a.tell(ctx, a.newNote(Published), 1)
			}
			return err
		}
	}
	a.say("%s %s is a member of its cluster", a.facts.Role, a.journal.Hostname)
	return nil
}

// steps is what makes a node of each role, in order.
func steps(c *config.NodeConfig) []step {
	start := []step{
		{"identity", "", (*Agent).keepMachineID},
		{"address", "", (*Agent).findAddress},
		{"hostname", "", (*Agent).setHostname},
		{"ssh keys", "", (*Agent).placeSSHKeys},
		{"time", "check the machine's clock and its time servers", (*Agent).waitForTime},
		{"container runtime", "look at `journalctl -u containerd`", (*Agent).waitForRuntime},
	}
	images := step{"container images", "look at `journalctl -u imgbuild-images -u containerd`; is /var full?", (*Agent).haveImages}
	switch {
	case c.Role == config.Worker:
		return append(start, []step{
			{"clean slate", "", (*Agent).wipe},
			images,
			{"waiting for the API", "", (*Agent).waitForAPI},
			{"preflight", "mend what kubeadm names", (*Agent).preflightJoin},
			{"join", "look at `journalctl -u kubelet`", (*Agent).join},
			{"commit", "", (*Agent).commit},
		}...)
	case c.Joins:
		return append(start, []step{
			{"leaving etcd", "", (*Agent).leaveEtcd},
			{"clean slate", "", (*Agent).wipe},
			images,
			{"waiting for the API", "", (*Agent).waitForAPI},
			{"masters before it", "", (*Agent).awaitTurn},
			{"etcd members", "", (*Agent).checkEtcd},
			{"keys and certificates", "", (*Agent).placePKI},
			{"preflight", "mend what kubeadm names", (*Agent).preflightJoin},
			{"virtual address", "look at `journalctl -u imgbuild-vip`", (*Agent).holdAddress},
			{"join", "look at `crictl ps -a` and `journalctl -u kubelet`", (*Agent).join},
			{"kubeconfig", "", (*Agent).placeKubeconfig},
			{"commit", "", (*Agent).commit},
		}...)
	}
	return append(start, []step{
		{"clean slate", "", (*Agent).wipe},
		images,
		{"one cluster", "", (*Agent).refuseSecond},
		{"keys and certificates", "", (*Agent).placePKI},
		{"preflight", "mend what kubeadm names", (*Agent).preflightInit},
		{"virtual address", "look at `journalctl -u imgbuild-vip`", (*Agent).holdAddress},
		{"control plane", "look at `crictl ps -a` and `journalctl -u kubelet`", (*Agent).initControlPlane},
		{"only one", "", (*Agent).beAlone},
		{"cluster", "look at `crictl ps -a` and `journalctl -u kubelet`", (*Agent).initCluster},
		{"pod network", "look at `kubectl -n kube-flannel get pods`", (*Agent).applyNetwork},
		{"kubeconfig", "", (*Agent).placeKubeconfig},
		{"commit", "", (*Agent).commit},
	}...)
}

// record moves the journal to a phase, durably, or leaves it in the one that it had.
func (a *Agent) record(p Phase) error {
	before := a.journal.Phase
	a.journal.Phase = p
	if id, err := readLine(a.path("/proc/sys/kernel/random/boot_id")); err == nil {
		a.journal.BootID = id
	}
	if err := a.journal.write(a.path(StateDir, "journal.json")); err != nil {
		a.journal.Phase = before
		return err
	}
	a.status.Phase = p
	return nil
}

// fail puts the error in the status and returns it, without the secrets.
func (a *Agent) fail(name string, err error) error {
	a.status.Step, a.status.Cause, a.status.Waiting = name, a.hide(err.Error()), ""
	a.status.Cure = "look at `journalctl -u imgbuild-firstboot`"
	var f *fault
	if errors.As(err, &f) && f.cure != "" {
		a.status.Cure = f.cure
	}
	a.say("%s failed: %v", name, err)
	return errors.New(a.hide(fmt.Sprintf("%s: %v", name, err)))
}

// hide takes the token out of text, whatever wrote it.
func (a *Agent) hide(text string) string {
	if a.config == nil || a.config.Token.Empty() {
		return text
	}
	token := a.config.Token.Reveal()
	return strings.ReplaceAll(strings.ReplaceAll(text, token, "[secret]"), token[7:], "[secret]")
}

// waitFor polls until ready says yes. What it waits for may be a network, another
// machine or a person: it has no end, and what is missing is in the status. A person
// may mend the node config meanwhile: then it is an error, and the next try takes it.
func (a *Agent) waitFor(ctx context.Context, ready func(context.Context) error) error {
	last := ""
	for asked := 1; ; asked++ {
		err := ready(ctx)
		if err != nil && asked%lookAgain == 0 && a.configChanged(ctx) {
			return errors.New("the node config has changed")
		}
		if err == nil {
			a.status.Waiting, a.status.Cure = "", ""
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var f *fault
		if errors.As(err, &f) {
			a.status.Cure = f.cure
		}
		if text := err.Error(); text != last {
			a.status.Waiting, last = a.hide(text), text
			a.show()
		}
		if err := pause(ctx, a.Pause); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func sum(data []byte) string { return fmt.Sprintf("%x", sha256.Sum256(data)) }
