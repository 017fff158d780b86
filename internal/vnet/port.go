package vnet

import (
	"bytes"
	"net"
	"sync"
)

// portQueue is how many frames wait for a machine that does not read.
const portQueue = 4096

// port is a machine's socket on the switch. The library's switch writes to every
// port under one lock, so a machine that does not read (it is in its firmware,
// or hangs) would stop the whole network; like a real switch's port, this one
// drops what has no room.
type port struct {
	net.Conn
	frames chan []byte
	once   sync.Once
	done   chan struct{}
}

func newPort(conn net.Conn) *port {
	p := &port{Conn: conn, frames: make(chan []byte, portQueue), done: make(chan struct{})}
	go p.send()
	return p
}

// Write takes one frame with its length before it, as the switch hands them
// over. It never blocks and never fails: a dead port is seen by its reader.
func (p *port) Write(frame []byte) (int, error) {
	select {
	case p.frames <- bytes.Clone(frame):
	default: // full: the frame is lost, as on any Ethernet
	}
	return len(frame), nil
}

func (p *port) send() {
	for {
		select {
		case <-p.done:
			return
		case frame := <-p.frames:
			if _, err := p.Conn.Write(frame); err != nil {
				_ = p.Close()
				return
			}
		}
	}
}

// Close ends the port; more than once does no harm.
func (p *port) Close() (err error) {
	p.once.Do(func() {
		close(p.done)
		err = p.Conn.Close()
	})
	return err
}
