// Package lease gives IPv4 addresses of a range to machines, each its own: what a small
// DHCP server (RFC 2131) has to remember. It is in memory; a machine that asks for the
// address that it had gets it back, where nobody else has it.
package lease

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// MaxRange is how many addresses a pool can have.
const MaxRange = 4096

// held is how long an offered address waits to be taken, declined how long one rests
// that a machine found in use.
const held, declined = time.Minute, 10 * time.Minute

// Pool is the addresses. Its methods may be called at once.
type Pool struct {
	mu    sync.Mutex
	addrs []netip.Addr
	byKey map[string]netip.Addr
	taken map[netip.Addr]entry
	life  time.Duration
}

type entry struct {
	key   string
	until time.Time
}

// New makes a pool of the addresses from first to last, without those of skip; life is
// that of a lease.
func New(first, last netip.Addr, life time.Duration, skip ...netip.Addr) (*Pool, error) {
	if !first.Is4() || !last.Is4() || last.Less(first) {
		return nil, fmt.Errorf("%s-%s: want two IPv4 addresses, the lower one first", first, last)
	}
	p := &Pool{byKey: map[string]netip.Addr{}, taken: map[netip.Addr]entry{}, life: life}
	skipped := map[netip.Addr]bool{}
	for _, a := range skip {
		skipped[a] = true
	}
	for a, n := first, 0; a.IsValid() && !last.Less(a); a, n = a.Next(), n+1 {
		if n == MaxRange {
			return nil, fmt.Errorf("%s-%s: more than %d addresses", first, last, MaxRange)
		}
		if !skipped[a] {
			p.addrs = append(p.addrs, a)
		}
	}
	if len(p.addrs) == 0 {
		return nil, fmt.Errorf("%s-%s: no address is left for a machine", first, last)
	}
	return p, nil
}

// Offer is an address for the machine: the one it has, else the one it wants, else one that
// nobody has, else the one whose lease ended first. False: all are in use.
func (p *Pool) Offer(key string, want netip.Addr, now time.Time) (netip.Addr, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byKey[key]; ok {
		p.extend(a, key, now.Add(held))
		return a, true
	}
	var free netip.Addr
	for _, a := range p.addrs {
		e, used := p.taken[a]
		switch {
		case used && now.Before(e.until):
		case a == want:
			p.put(a, key, now.Add(held))
			return a, true
		case !free.IsValid(), !used && p.used(free), used && p.used(free) && e.until.Before(p.taken[free].until):
			free = a
		}
	}
	if !free.IsValid() {
		return free, false
	}
	p.put(free, key, now.Add(held))
	return free, true
}

// Take leases an address that the machine asks for, anew or again; false: it is not its.
func (p *Pool) Take(key string, a netip.Addr, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if has, ok := p.byKey[key]; !ok || has != a {
		e, used := p.taken[a]
		if used && now.Before(e.until) || !p.holds(a) {
			return false
		}
		p.put(a, key, now)
	}
	p.extend(a, key, now.Add(p.life))
	return true
}

// Free ends the machine's lease.
func (p *Pool) Free(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byKey[key]; ok {
		delete(p.byKey, key)
		delete(p.taken, a)
	}
}

// Decline has the machine's address rest: it found it in use.
func (p *Pool) Decline(key string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.byKey[key]; ok {
		delete(p.byKey, key)
		p.taken[a] = entry{until: now.Add(declined)}
	}
}

func (p *Pool) holds(a netip.Addr) bool {
	for _, own := range p.addrs {
		if own == a {
			return true
		}
	}
	return false
}

func (p *Pool) used(a netip.Addr) bool {
	_, ok := p.taken[a]
	return ok
}

// put gives an address to a machine, away from who had it and from what that one had.
func (p *Pool) put(a netip.Addr, key string, until time.Time) {
	if before, ok := p.taken[a]; ok {
		delete(p.byKey, before.key)
	}
	if old, ok := p.byKey[key]; ok {
		delete(p.taken, old)
	}
	p.byKey[key], p.taken[a] = a, entry{key, until}
}

func (p *Pool) extend(a netip.Addr, key string, until time.Time) {
	if until.After(p.taken[a].until) {
		p.taken[a] = entry{key, until}
	}
}
