package kit

import (
	"bytes"
	"context"

	"github.com/imgbuild/imgbuild/internal/vnet"
)

// Guard knocks at nodes without a pause, from before they are powered on, so that
// a moment without packet filter does not pass unseen: any port at all answers then.
type Guard struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	count  int
}

// suspects are the ports that would be open first: remote login, port mapper, the
// control plane's and the kubelet's, names, tunnels. Others are taken in turn.
var suspects = map[string][]uint16{
	"tcp": {22, 111, 179, 2379, 2381, 5355, 6443, 10248, 10249, 10250, 10256, 10257, 10259},
	"udp": {53, 68, 111, 123, 5353, 5355, 546, 8472},
}

// turn is how many other ports go with each round.
const turn = 40

// Guard begins to knock, perSecond times a second. What answered is in the
// stranger's Heard, which begins anew.
func (c *Cluster) Guard(ctx context.Context, perSecond int, targets ...Target) *Guard {
	ctx, cancel := context.WithCancel(ctx)
	g := &Guard{cancel: cancel, done: make(chan struct{})}
	c.Stranger.Forget()
	go func() {
		defer close(g.done)
		every := EveryPort()
		for at := 0; ; at = (at + turn) % (len(every) - turn) {
			var probes []vnet.Probe
			for _, t := range targets {
				for proto, ports := range suspects {
					probes = append(probes, t.Probes(proto, ports...)...)
				}
				probes = append(probes, t.Probes("tcp", every[at:at+turn]...)...)
			}
			err := c.Stranger.Knock(ctx, probes, perSecond)
			if ctx.Err() != nil {
				return
			}
			if g.count += len(probes); err != nil {
				g.err = err
				return
			}
		}
	}()
	return g
}

// Stop ends the knocking and says how often it was done.
func (g *Guard) Stop() (int, error) {
	g.cancel()
	<-g.done
	return g.count, g.err
}

// firmware reads a console until the kernel speaks there. UEFI has a network of its own,
// which answers a stranger until then: no system's packet filter is in force there.
type firmware struct {
	leaves func()
	said   []byte
}

func (f *firmware) Write(data []byte) (int, error) {
	if f.leaves == nil {
		return len(data), nil
	}
	if f.said = append(f.said, data...); bytes.Contains(f.said, []byte("Linux version ")) {
		f.leaves()
		f.leaves, f.said = nil, nil
	}
	return len(data), nil
}
