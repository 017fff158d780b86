package vnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// Probe is one port of one machine, as seen from outside.
type Probe struct {
	Addr  netip.Addr // a machine's IPv4 address, or LinkLocal of it
	Proto string     // tcp or udp
	Port  uint16
}

// Answer is what a probe met. Silence is no answer; all others show that the
// packet filter let it through, or said that it does not.
type Answer string

// The answers.
const (
	Open    Answer = "open"    // SYN-ACK, or a datagram
	Closed  Answer = "closed"  // RST, or ICMP "port unreachable": let in, and nobody listens
	Refused Answer = "refused" // another ICMP error, but for those that say that nobody has the address
)

// Scanner is a machine on the network that does nothing but knock: it makes its
// packets itself, so that 65535 ports of IPv4 and IPv6 take seconds, and hears
// every answer. It opens no connection for good.
type Scanner struct {
	conn  net.Conn
	mac   tcpip.LinkAddress
	addrs map[bool]netip.Addr // by Is4

	write sync.Mutex
	mu    sync.Mutex
	heard map[Probe]Answer
	knock uint16 // source port of the last round
}

// LinkLocal is the IPv6 address that the machine of an IPv4 address makes itself
// from its MAC address (RFC 4291, appendix A).
func LinkLocal(ip string) (netip.Addr, error) {
	mac, err := linkAddress(ip)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}), nil
}

func linkAddress(ip string) (tcpip.LinkAddress, error) {
	text, err := MAC(ip)
	if err != nil {
		return "", err
	}
	mac, err := net.ParseMAC(text)
	return tcpip.LinkAddress(mac), err
}

// NewScanner connects to the network's socket as the machine of an IPv4 address
// that nobody else has. The caller closes it.
func NewScanner(path, ip string) (*Scanner, error) {
	mac, err := linkAddress(ip)
	if err != nil {
		return nil, err
	}
	six, err := LinkLocal(ip)
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("connecting the scanner: %w", err)
	}
	s := &Scanner{conn: conn, mac: mac, addrs: map[bool]netip.Addr{true: netip.MustParseAddr(ip), false: six}, heard: map[Probe]Answer{}}
	go s.read()
	return s, nil
}

// Close takes the scanner off the network.
func (s *Scanner) Close() error { return s.conn.Close() }

// Heard is what has answered since the last Forget.
func (s *Scanner) Heard() map[Probe]Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.heard)
}

// Forget begins anew.
func (s *Scanner) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.heard)
}

// ForgetOf forgets what one address has answered.
func (s *Scanner) ForgetOf(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.heard, func(p Probe, _ Answer) bool { return p.Addr == addr })
}

// tick is how often a sweep sends its share.
const tick = 5 * time.Millisecond

// Sweep is Knock, and waits for the last answers.
func (s *Scanner) Sweep(ctx context.Context, probes []Probe, perSecond int) error {
	if err := s.Knock(ctx, probes, perSecond); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(linger):
		return nil
	}
}

// Knock sends each probe once, perSecond of them in a second. What it hears is in
// Heard.
func (s *Scanner) Knock(ctx context.Context, probes []Probe, perSecond int) error {
	s.mu.Lock()
	s.knock = 20000 + (s.knock+1)%40000
	from := s.knock
	s.mu.Unlock()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	share, met := max(1, perSecond*int(tick)/int(time.Second)), map[netip.Addr]bool{}
	for i, p := range probes {
		if i%share == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
			}
		}
		if i%(10*perSecond) == 0 {
			clear(met) // neighbours forget
		}
		if !met[p.Addr] && !p.Addr.Is4() {
			met[p.Addr] = true
			if err := s.introduce(p.Addr); err != nil {
				return err
			}
		}
		if err := s.send(s.knocking(p, from)); err != nil {
			return err
		}
	}
	return nil
}

// VXLAN is a tunnel (RFC 7348) as seen from outside.
type VXLAN struct {
	ID   uint32
	Port uint16
	MAC  string // of its device on the machine that the probes go to
}

// KnockThrough sends each probe, of an IPv4 address, wrapped as if it came out of
// the tunnel, three times, and waits for the answers.
func (s *Scanner) KnockThrough(ctx context.Context, v VXLAN, probes []Probe) error {
	mac, err := net.ParseMAC(v.MAC)
	if err != nil {
		return err
	}
	for i := range 3 * len(probes) {
		p := probes[i%len(probes)]
		inner := s.knocking(p, 64000+uint16(i)) // #nosec G115 -- few
		copy(inner, mac)
		if err := s.send(s.wrapped(v, p.Addr, inner)); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(linger):
		return nil
	}
}

// linger is how long the last answers may take; a machine may be emulated.
const linger = 2 * time.Second

// introduce tells a neighbour the scanner's MAC address. The switch floods no
// multicast, so that nobody could ask for it (RFC 4861, section 7.2.3 lets a
// solicitation come by unicast, and carry it).
func (s *Scanner) introduce(to netip.Addr) error { return s.send(s.solicitation(to)) }

func (s *Scanner) send(frame []byte) error {
	s.write.Lock()
	defer s.write.Unlock()
	_, err := s.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)) // #nosec G115 -- a frame is small
	return err
}

// read notes answers and says who it is to who asks, until the network ends.
func (s *Scanner) read() {
	var size [4]byte
	for {
		if _, err := io.ReadFull(s.conn, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(s.conn, frame); err != nil {
			return
		}
		p, answer, reply := s.understand(frame)
		if answer != "" {
			s.mu.Lock()
			if s.heard[p] != Open {
				s.heard[p] = answer
			}
			s.mu.Unlock()
		}
		if reply != nil && s.send(reply) != nil {
			return
		}
	}
}
