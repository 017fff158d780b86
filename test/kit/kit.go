// Package kit is what the demo and the cluster test share: it builds imgbuild,
// makes a master's and a worker's image with the real command line, and boots
// them on one network. It prints nothing.
package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// Addresses of the two nodes, and the endpoint of their API.
const (
	MasterIP = "10.0.0.10"
	WorkerIP = "10.0.0.11"
	Endpoint = MasterIP + ":6443"

	strangerIP = "10.0.0.99" // a machine that belongs to no cluster
)

// Kit is a folder with imgbuild, images and an identity.
type Kit struct {
	Bin  string    // folder of the executables
	Dir  string    // everything else
	Said io.Writer // what the tools say on stderr
}

// BuildTools compiles imgbuild and its node programs from the module root into Bin, those
// for more than amd64 where more is said.
func (k Kit) BuildTools(ctx context.Context, root string, more ...string) error {
	build := func(name, out, arch string) error {
		args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(k.Bin, out), "./cmd/" + name}
		return run.Run(ctx, run.Cmd{Name: "go", Args: args, Dir: root, Env: []string{"CGO_ENABLED=0", "GOARCH=" + arch}})
	}
	err := build("imgbuild", "imgbuild", runtime.GOARCH)
	for _, arch := range append([]string{"amd64"}, more...) {
		for _, name := range []string{"imgbuild-initrd", "imgbuild-firstboot"} {
			if err == nil {
				err = build(name, name+"-"+arch, arch)
			}
		}
	}
	return err
}

// Imgbuild runs the real command line and returns its standard output.
func (k Kit) Imgbuild(ctx context.Context, args ...string) (string, error) {
	out, err := run.Output(ctx, run.Cmd{Name: filepath.Join(k.Bin, "imgbuild"), Args: args, Stderr: k.Said})
	return string(out), err
}

// Identity makes the cluster's identity in Dir/cluster.
func (k Kit) Identity(ctx context.Context) error {
	_, err := k.Imgbuild(ctx, "cluster", "new", "demo", "--endpoint", Endpoint, "--dir", filepath.Join(k.Dir, "cluster"))
	return err
}

// Image builds a role's image in one format and returns its path.
func (k Kit) Image(ctx context.Context, role, format string, more ...string) (string, error) {
	out := filepath.Join(k.Dir, "out")
	_, err := k.Imgbuild(ctx, append([]string{role, "-o", out, "--format", format}, more...)...)
	return filepath.Join(out, role+"."+format), err
}

// Cluster is two nodes on a network of their own.
type Cluster struct {
	Net            *vnet.Net
	Stranger       *vnet.Scanner // a host outside, who knocks
	API            *API
	Master, Worker *boottest.Machine
	Stamped        bool // the worker's image carries its node config

	site   *Site
	images map[string]string
}

// Up starts the network and the master.
func (k Kit) Up(ctx context.Context, images map[string]string) (*Cluster, error) {
	c, err := k.Network(ctx, images)
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

// Network starts the network alone, so that someone is there before the nodes are.
func (k Kit) Network(ctx context.Context, images map[string]string) (*Cluster, error) {
	net, socket, err := network()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Net: net, site: &Site{Kit: k, Net: net, Socket: socket, began: repro.Now()}, images: images}
	if c.API, err = k.NewAPI(ctx, DialMaster(c.Net), time.Minute); err != nil {
		return nil, err
	}
	c.Stranger, err = vnet.NewScanner(socket, strangerIP)
	return c, err
}

// Start boots the master. The worker comes when that is Ready
// (WaitReady, Watch): emulated on few processors, the two would starve each other's API.
func (c *Cluster) Start(ctx context.Context) (err error) {
	c.Master, err = c.boot(ctx, "master", MasterIP, 4096, 2, "smbios")
	return err
}

// Site is where the cluster's machines are, for a test that boots them itself.
func (c *Cluster) Site() *Site { return c.site }

// join boots the worker, unless it runs, once the master is Ready; that it may come first, test/ha and test/faults show.
func (c *Cluster) join(ctx context.Context) error {
	if c.Worker != nil {
		return nil
	}
	if err := c.API.Until(ctx, c.NodeReady("master", time.Time{})); err != nil {
		return err
	}
	via := boottest.Seed
	if c.Stamped {
		via = ""
	}
	var err error
	if c.Worker, err = c.boot(context.WithoutCancel(ctx), "worker", WorkerIP, 2560, 1, via); err != nil {
		return err
	}
	return c.Worker.Yield(ctx, 2) // the master's API server must answer its probes in time
}

func (c *Cluster) boot(ctx context.Context, role, ip string, memory, cpus int, via string) (*boottest.Machine, error) {
	var config []byte
	if via != "" {
		var err error
		if config, err = os.ReadFile(filepath.Join(c.site.Dir, "cluster", role+".yaml")); err != nil {
			return nil, err
		}
	}
	n := boottest.Node{Name: role, Image: c.images[role], Config: config, Via: via, IP: ip, Memory: memory, CPUs: cpus}
	c.Watched(&n)
	return c.site.start(ctx, n)
}

// Watched has the stranger forget what a machine's firmware answers.
func (c *Cluster) Watched(n *boottest.Node) {
	n.Console = &firmware{leaves: func() {
		for _, addr := range (Target{IP: n.IP}).Addrs() {
			c.Stranger.ForgetOf(addr)
		}
	}}
}

// stopLimit is how long a node may take to stop its pods, each of which has its
// own time to end.
const stopLimit = 10 * time.Minute

// Stop powers both nodes off, cleanly, side by side.
func (c *Cluster) Stop(ctx context.Context) error {
	var group errgroup.Group
	for _, m := range []*boottest.Machine{c.Worker, c.Master} {
		group.Go(func() error { return powerOff(ctx, m) })
	}
	return group.Wait()
}

// StopWorker powers the worker off, cleanly; WaitReady powers it on again.
func (c *Cluster) StopWorker(ctx context.Context) error {
	err := powerOff(ctx, c.Worker)
	c.Worker = nil
	return err
}

func powerOff(ctx context.Context, m *boottest.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	if err := m.PowerOff(ctx); err != nil {
		return fmt.Errorf("stopping %s: %w\n%s", m.Name, err, m.Tail(15))
	}
	return nil
}

// Close ends the machines and the network.
func (c *Cluster) Close() {
	for _, m := range []*boottest.Machine{c.Worker, c.Master} {
		if m != nil && m.Machine != nil {
			_ = m.Kill()
		}
	}
	if c.Stranger != nil {
		_ = c.Stranger.Close()
	}
	_ = c.Net.Close()
	_ = os.RemoveAll(filepath.Dir(c.site.Socket))
}

// WaitReady waits until both nodes are Ready and every pod runs, or ctx ends.
func (c *Cluster) WaitReady(ctx context.Context) error {
	err := c.join(ctx)
	for _, what := range []func(context.Context) error{c.NodesReady(2), c.API.PodsReady} {
		if err == nil {
			err = c.API.Until(ctx, what)
		}
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.consoles())
	}
	return nil
}

// consoles is what the machines said last.
func (c *Cluster) consoles() (text string) {
	for _, m := range []*boottest.Machine{c.Master, c.Worker} {
		if m != nil {
			text += fmt.Sprintf("--- %s's console\n%s\n", m.Name, m.Tail(30))
		}
	}
	return text
}

// Watch tells each stage of the first boot of both nodes as it is over, until
// every pod runs or half an hour is past.
func (c *Cluster) Watch(ctx context.Context, over func(stage string)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	for _, s := range []struct{ name, script string }{
		{"power-on to a service manager", "true"},
		{"control plane up", `grep -Eq 'published|committed' /var/lib/imgbuild/firstboot/journal.json`},
	} {
		if _, err := c.Master.Until(ctx, 3*time.Second, s.script); err != nil {
			return fmt.Errorf("%s: %w\n%s", s.name, err, c.Master.Tail(30))
		}
		over(s.name)
	}
	if err := errors.Join(c.join(ctx), c.API.Until(ctx, c.NodesReady(2))); err != nil {
		return fmt.Errorf("%w\n%s", err, c.consoles())
	}
	over("both nodes Ready")
	if err := c.API.Until(ctx, c.API.PodsReady); err != nil {
		return err
	}
	over("all pods running")
	return nil
}

// Made begin the keys of all that imgbuild makes of packages and images.
var Made = []string{"base ", "package layer ", "kernel indices ", "containerd ", "sums ", "verity "}

// Cache is the cache folder of everyday.
func Cache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	Must(t, err)
	return filepath.Join(dir, "imgbuild")
}

// Cold is a cache in which nothing is left of what imgbuild made of packages and images:
// only what was fetched or compiled. It goes with the test.
func (k Kit) Cold(t *testing.T) string {
	t.Helper()
	cache := Cache(t)
	copied, err := os.MkdirTemp(filepath.Dir(cache), "imgbuild-cold-") // on the same file system: blobs are linked, not copied
	Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(copied) })
	cold := filepath.Join(copied, "cache")
	Must(t, run.Run(t.Context(), run.Cmd{Name: "cp", Args: []string{"-al", cache, cold}}))
	Must(t, k.Forget(t.Context(), cold, Made...))
	return cold
}
