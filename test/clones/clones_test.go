// Package clones boots one image many times and wants every machine to be one of
// its own; then it boots a copy of a disk that has booted before, and wants that
// refused. `make clones` does it in full and writes docs/clones.md.
package clones

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

var (
	boots  = flag.Int("boots", 2, "how many machines to boot from the one image")
	update = flag.Bool("update", false, "write what was counted into docs/clones.md")
)

const page = "../../docs/clones.md"

// limit is how long one machine may take to say who it is, emulated on a busy host.
const limit = 10 * time.Minute

// identities are what must not be alike in two machines, and the command that
// says it. Each fails where the thing is not there yet.
var identities = []struct{ name, command string }{
	{"machine id", "cat /etc/machine-id"},
	{"machine id, as kept for the next boot", "cat /var/lib/imgbuild/etc/machine-id"},
	{"host name (the node config gives none)", `hostname | grep -E '^worker-[0-9a-f]{8}$'`},
	{"SSH host key", "cut -d' ' -f2 /var/lib/imgbuild/etc/ssh/ssh_host_ed25519_key.pub | grep ."},
	{"DHCPv4 client identity", "sed -n 's/^CLIENTID=//p' /run/systemd/netif/leases/* | grep . || networkctl --no-pager status | sed -n 's/.*DHCPv4 Client ID: *//p' | grep ."},
	{"DHCPv6 unique identifier (DUID)", "sed -n 's/^DHCP6_CLIENT_DUID=//p' /run/systemd/netif/links/* | grep ."},
	{"IPv4 address", `ip -4 -o addr show scope global | sed 's/.* inet \([^ ]*\).*/\1/' | grep .`},
	{"random seed of the next boot", "sha256sum < /var/lib/systemd/random-seed"},
	{"first random bytes", "head -c 32 /dev/urandom | sha256sum"},
	{"/var's file system", `blkid -s UUID -o value /dev/disk/by-partlabel/imgbuild-var | grep .`},
	{"boot id", "cat /proc/sys/kernel/random/boot_id"},
}

// bench is where the machines run.
type bench struct {
	*kit.Site
	image  string
	config []byte
	key    ssh.Signer // of who may log in
}

func newBench(t *testing.T) *bench {
	b := &bench{Site: kit.NewSite(t)}
	ctx := t.Context()
	kit.Must(t, b.Identity(ctx))
	var spec string
	spec, b.key = site(t, b.Kit)
	var err error
	b.image, err = b.Image(ctx, "worker", "qcow2", "-f", spec)
	kit.Must(t, err)
	b.config = fmt.Appendf(b.Config(t, "worker.yaml"), "sshAuthorizedKeys: [%q]\n", authorized(b.key))
	return b
}

// start boots a machine; each number has an address of its own.
func (b *bench) start(t *testing.T, name string, number int, config []byte) *boottest.Machine {
	t.Helper()
	return b.Start(t, boottest.Node{Name: name, Image: b.image, Config: config, IP: fmt.Sprintf("10.0.0.%d", 20+number), Memory: 1536, CPUs: 2})
}

func TestClones(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines: left out by -short")
	}
	b := newBench(t)
	seen := map[string]map[string]int{} // identity → what a machine said → how many said it
	var mu sync.Mutex
	t.Run("machines", func(t *testing.T) { // two at a time; ends when all have
		for n := range *boots {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				said := b.identities(t, n)
				mu.Lock()
				defer mu.Unlock()
				for name, id := range said {
					if seen[name] == nil {
						seen[name] = map[string]int{}
					}
					seen[name][id]++
				}
			})
		}
	})
	for _, id := range identities {
		if len(seen[id.name]) != *boots {
			t.Errorf("%s: %d boots said %v", id.name, *boots, seen[id.name])
		}
	}
	t.Run("copied disk", func(t *testing.T) { b.copied(t, "clone-0") })
	if *update && !t.Failed() {
		kit.Must(t, os.WriteFile(page, report(seen), 0o644))
	}
}

// identities boots a new machine and asks for all that is its own. The first one's disk
// is copied later: it is powered off, and has more to tell before.
func (b *bench) identities(t *testing.T, n int) map[string]string {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m := b.start(t, fmt.Sprintf("clone-%d", n), n, b.config)
	defer m.Kill() //nolint:errcheck // it is only asked
	said := map[string]string{}
	for _, id := range identities {
		var err error
		if said[id.name], err = ask(ctx, m, id.command); err != nil {
			net, _ := m.Sh(ctx, "cat /run/systemd/netif/links/* /run/systemd/netif/leases/*")
			t.Errorf("%s: %v\n%s\n%s", id.name, err, net, m.Tail(15))
		}
	}
	if n == 0 {
		t.Run("another system's config", func(t *testing.T) { b.carried(ctx, t, m, "10.0.0.20") })
		kit.Must(t, m.PowerOff(ctx))
	}
	return said
}

// ask waits for the machine to come up, and then a minute and a half for one answer.
func ask(ctx context.Context, m *boottest.Machine, command string) (string, error) {
	if _, err := m.Until(ctx, 2*time.Second, "test -e /run/imgbuild/status.json"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return m.Until(ctx, 2*time.Second, command)
}

// copied starts a copy of a disk that has booted once as another machine: it is
// told so, and neither joins nor starts the kubelet. Adopted by its own name, it
// goes on; the original is not touched by any of it.
func (b *bench) copied(t *testing.T, of string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	machines := filepath.Join(b.Dir, "machines")
	kit.Must(t, copyDisk(ctx, filepath.Join(machines, of), filepath.Join(machines, "twin")))
	m := b.start(t, "twin", *boots+1, b.config)
	defer m.Kill() //nolint:errcheck // it is only asked
	text, err := m.Until(ctx, 2*time.Second, "cat /run/imgbuild/status.json")
	kit.Must(t, err)
	var s firstboot.Status
	kit.Must(t, json.Unmarshal([]byte(text), &s))
	if s.Step != "machine" || !strings.Contains(s.Cause, "belongs to another machine") || !strings.Contains(s.Cure, "adopt: ") {
		t.Errorf("the copy says %s", text)
	}
	for _, script := range []string{
		"! systemctl is-active kubelet && test ! -e /run/imgbuild/kubelet-may-start",
		"! imgbuild-firstboot status >/run/said; grep -q 'belongs to another machine' /run/said",
		"test ! -e /etc/kubernetes/kubelet.conf",
	} {
		if _, err := m.Sh(ctx, script); err != nil {
			t.Error(err)
		}
	}
	if log := m.Tail(40); !strings.Contains(log, "This node did not join its cluster.") {
		t.Errorf("the console says nothing of it:\n%s", log)
	}
	_, rest, _ := strings.Cut(s.Cure, `adopt: "`)
	name, _, _ := strings.Cut(rest, `"`)
	_ = m.Kill()
	m = b.start(t, "twin", *boots+1, append(bytes.Clone(b.config), "adopt: "+name+"\n"...))
	defer m.Kill() //nolint:errcheck // it is only asked
	if _, err := m.Until(ctx, 2*time.Second, `grep -q '"number"' /run/imgbuild/status.json && grep -qi '`+name+`' /var/lib/imgbuild/firstboot/journal.json`); err != nil {
		t.Errorf("adopted by %q: %v\n%s", name, err, m.Tail(30))
	}
}

// report is the page.
func report(seen map[string]map[string]int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# One image, many machines\n\n`make clones` wrote this. One worker's image, booted %d times in QEMU, each time as a new\nmachine with one and the same node config.\n\n| what must be the machine's own | boots | distinct |\n|---|---|---|\n", *boots)
	for _, id := range identities {
		fmt.Fprintf(&b, "| %s | %d | %d |\n", id.name, *boots, len(seen[id.name]))
	}
	b.WriteString("\nA copy of a disk that had booted before, started as another machine: refused, with cause and cure on its console; it\nstarts no kubelet. A node config that names that very machine (`adopt`) lets it go on.\n")
	return []byte(b.String())
}

// copyDisk copies the disk of a machine that is off into the folder of another.
func copyDisk(ctx context.Context, from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, file := range []string{"disk.qcow2", "disk.base", "vars.fd"} {
		if err := run.Run(ctx, run.Cmd{Name: "cp", Args: []string{"--sparse=always", filepath.Join(from, file), to}}); err != nil {
			return err
		}
	}
	return nil
}
