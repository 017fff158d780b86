package lease

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	begin = time.Unix(1000, 0)
	first = netip.MustParseAddr("10.0.0.100")
	last  = netip.MustParseAddr("10.0.0.103")
)

// TestPool plays a day of four addresses, one of which is the server's.
func TestPool(t *testing.T) {
	p, err := New(first, last, time.Hour, netip.MustParseAddr("10.0.0.102"))
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		do   string // offer KEY WANT, take KEY ADDR, free KEY, decline KEY
		at   time.Duration
		want string
	}{
		{"offer a 0.0.0.0", 0, "10.0.0.100"},
		{"offer a 0.0.0.0", 0, "10.0.0.100"},
		{"take b 10.0.0.100", 0, "false"}, // a holds it
		{"take a 10.0.0.100", time.Second, "true"},
		{"offer b 10.0.0.103", time.Second, "10.0.0.103"},
		{"take b 10.0.0.103", time.Second, "true"},
		{"offer c 10.0.0.102", time.Second, "10.0.0.101"}, // that is the server's
		{"offer d 0.0.0.0", time.Second, "none"},
		{"offer d 0.0.0.0", 2 * time.Minute, "10.0.0.101"}, // c never took it
		{"take c 10.0.0.101", 2 * time.Minute, "false"},
		{"take d 10.0.0.101", 2 * time.Minute, "true"},
		{"take d 10.0.0.102", 2 * time.Minute, "false"},
		{"take d 10.0.1.1", 2 * time.Minute, "false"},
		{"free b", 2 * time.Minute, ""},
		{"offer c 0.0.0.0", 2 * time.Minute, "10.0.0.103"},
		{"decline c", 2 * time.Minute, ""},
		{"offer c 0.0.0.0", 3 * time.Minute, "none"},
		{"offer c 0.0.0.0", 13 * time.Minute, "10.0.0.103"},
		{"take e 10.0.0.100", 30 * time.Minute, "false"},
		{"take e 10.0.0.100", 2 * time.Hour, "true"}, // a's lease is over, and e had it once
		{"offer a 10.0.0.100", 2 * time.Hour, "10.0.0.103"},
	} {
		var do, key, addr, got string
		fmt.Sscan(step.do, &do, &key, &addr)
		a, _ := netip.ParseAddr(addr)
		switch now := begin.Add(step.at); do {
		case "offer":
			got = "none"
			if a, ok := p.Offer(key, a, now); ok {
				got = a.String()
			}
		case "take":
			got = fmt.Sprint(p.Take(key, a, now))
		case "free":
			p.Free(key)
		case "decline":
			p.Decline(key, now)
		}
		if got != step.want {
			t.Fatalf("step %d, %s: %s, want %s", i, step.do, got, step.want)
		}
	}
}

func TestBadRange(t *testing.T) {
	for _, c := range [][2]string{{"10.0.0.2", "10.0.0.1"}, {"fd00::1", "fd00::2"}, {"10.0.0.0", "10.0.16.0"}, {"10.0.0.1", "10.0.0.1"}} {
		if _, err := New(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1]), time.Hour, netip.MustParseAddr("10.0.0.1")); err == nil {
			t.Errorf("%v was taken", c)
		}
	}
}
