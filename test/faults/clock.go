package faults

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/imgbuild/imgbuild/internal/vnet"
)

// TimeServer is where images look for the time that are booted here.
const TimeServer = "10.0.0.98"

// clocks answers NTP (RFC 5905, mode 4) once it is switched on.
type clocks struct{ on atomic.Bool }

func newClocks(socket string, now func() time.Time) (*clocks, *vnet.Host, error) {
	host, err := vnet.NewHost(socket, TimeServer)
	if err != nil {
		return nil, nil, err
	}
	conn, err := host.ListenPacket(123)
	if err != nil {
		return nil, nil, err
	}
	c := &clocks{}
	go func() {
		ask := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(ask)
			if err != nil {
				return // closed
			}
			if n >= 48 && c.on.Load() {
				_, _ = conn.WriteTo(answer(ask[:n], now()), from)
			}
		}
	}()
	return c, host, nil
}

func answer(ask []byte, at time.Time) []byte {
	now := stamp(at)
	out := make([]byte, 48)
	out[0], out[1], out[2], out[3] = 4<<3|4, 1, ask[2], 0xec // version 4, server; stratum 1; precision 2^-20
	copy(out[12:], "TEST")
	binary.BigEndian.PutUint64(out[16:], now) // reference
	copy(out[24:], ask[40:48])                // origin: what the client sent
	binary.BigEndian.PutUint64(out[32:], now)
	binary.BigEndian.PutUint64(out[40:], now)
	return out
}

// stamp is NTP's time: seconds since 1900, and 2^-32 of them.
func stamp(t time.Time) uint64 {
	return uint64(t.Unix()+2208988800)<<32 | uint64(t.Nanosecond())<<32/1e9
}
