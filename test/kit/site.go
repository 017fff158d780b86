package kit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/qemu"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/vnet"
)

// Site is a network of its own for machines that one test boots, and what the test
// tells of them. It ends with the test that made it; a step that fails ends a test.
type Site struct {
	Kit
	Net    *vnet.Net
	Socket string

	pace     float64 // seconds for its machines in one of the host's; 0: one
	began    time.Time
	timeline []string
}

// NewSite compiles the tools of the module two folders up and starts the network.
func NewSite(t *testing.T) *Site {
	t.Helper()
	dir := t.TempDir()
	s := &Site{Kit: Kit{Bin: filepath.Join(dir, "bin"), Dir: dir, Said: os.Stderr}, began: repro.Now()}
	Must(t, s.BuildTools(t.Context(), "../.."))
	var err error
	s.Net, s.Socket, err = network()
	Must(t, err)
	t.Cleanup(func() { _ = s.Net.Close(); _ = os.RemoveAll(filepath.Dir(s.Socket)) })
	return s
}

// network starts a network whose socket has a folder of its own.
func network() (*vnet.Net, string, error) {
	scratch, err := os.MkdirTemp("", "imgbuild-net-") // a socket's path must be short
	if err != nil {
		return nil, "", err
	}
	socket := filepath.Join(scratch, "net.sock")
	net, err := vnet.Serve(vnet.Options{Subnet: boottest.Subnet, Gateway: boottest.Gateway}, socket)
	return net, socket, err
}

// Config is a node config of the cluster in Dir/cluster, as it is now.
func (s *Site) Config(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Dir, "cluster", name))
	Must(t, err)
	return data
}

// Slow has the machines that are started from now on see pace seconds pass in one of the
// host's, where they are emulated.
func (s *Site) Slow(t *testing.T, pace float64) {
	t.Helper()
	emulated, err := qemu.Emulated(t.Context(), "")
	Must(t, err)
	if emulated && pace < 1 { // so is then every other architecture
		s.pace = pace
	}
}

// Now is what time it is for the site's machines.
func (s *Site) Now() time.Time {
	now := repro.Now()
	if s.pace == 0 {
		return now
	}
	return s.began.Add(time.Duration(float64(now.Sub(s.began)) * s.pace))
}

// Start powers a machine on, which runs no longer than t. A second time it has the disk
// of the first.
func (s *Site) Start(t *testing.T, n boottest.Node) *boottest.Machine {
	t.Helper()
	m, err := s.start(t.Context(), n)
	Must(t, err)
	t.Cleanup(func() { _ = m.Kill() })
	return m
}

// start powers a machine on at the site's pace.
func (s *Site) start(ctx context.Context, n boottest.Node) (*boottest.Machine, error) {
	if s.pace != 0 {
		if n.Pace = s.pace; n.Clock.IsZero() {
			n.Clock = s.Now()
		}
	}
	return boottest.Start(ctx, n, filepath.Join(s.Dir, "machines"), s.Socket, true)
}

// Until waits until a script succeeds in the machine, and tells when. What the script
// last says, and the machine's console, are told where it does not.
func (s *Site) Until(t *testing.T, limit time.Duration, stage string, m *boottest.Machine, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if out, err := m.Until(ctx, 3*time.Second, script); err != nil {
		t.Fatalf("%s: %v %s\n%s", stage, err, out, m.Tail(60))
	}
	s.Told(t, "%s", stage)
}

// Told writes a line of the timeline.
func (s *Site) Told(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf("%4.0f s  %s", repro.Now().Sub(s.began).Seconds(), fmt.Sprintf(format, args...))
	s.timeline = append(s.timeline, line)
	t.Log(line)
}

// Timeline is all that was told.
func (s *Site) Timeline() string { return strings.Join(s.timeline, "\n") + "\n" }

// Must ends a test that cannot go on.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
