//go:build linux

package vnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Wire is an Ethernet switch between a TAP interface of the host and machines, and nothing
// else: no DHCP, no gateway. It does what a bridge would, which not every kernel has.
type Wire struct {
	tap      *os.File
	listener net.Listener
	mu       sync.Mutex
	ports    map[io.Writer]bool
	heard    map[[6]byte]io.Writer // MAC address → its port
}

// NewWire connects an interface that is there with the machines that come to a unix
// socket, by QEMU's stream protocol. The caller closes it.
func NewWire(tap, path string) (*Wire, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("taking the interface %s: %w", tap, err)
	}
	request, err := unix.NewIfreq(tap)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	w := &Wire{tap: os.NewFile(uintptr(fd), tap), ports: map[io.Writer]bool{}, heard: map[[6]byte]io.Writer{}} // polled from here on: not before it is an interface
	if err == nil {
		w.listener, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("taking the interface %s: %w", tap, err), w.tap.Close())
	}
	go w.join(w.tap, w.tap.Read)
	go w.accept()
	return w, nil
}

// Close ends the wire; machines on it are cut off as they next send.
func (w *Wire) Close() error { return errors.Join(w.listener.Close(), w.tap.Close()) }

func (w *Wire) accept() {
	for {
		conn, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		go w.join(machine{newPort(conn)}, func(frame []byte) (int, error) {
			var size [4]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return 0, err
			}
			return io.ReadFull(conn, frame[:min(int(binary.BigEndian.Uint32(size[:])), len(frame))])
		})
	}
}

// machine takes frames and puts their lengths before them.
type machine struct{ *port }

func (m machine) Write(frame []byte) (int, error) {
	return m.port.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)) // #nosec G115 -- a frame is short
}

// join hands on what a port sends, until it ends.
func (w *Wire) join(port io.Writer, read func([]byte) (int, error)) {
	w.mu.Lock()
	w.ports[port] = true
	w.mu.Unlock()
	frame := make([]byte, 1<<16)
	for {
		n, err := read(frame)
		if err != nil {
			break
		}
		if n >= 14 { // an Ethernet header
			w.pass(port, frame[:n])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ports, port)
	for mac, at := range w.heard {
		if at == port {
			delete(w.heard, mac)
		}
	}
}

// pass gives a frame to the port where its destination was heard, or to all others.
func (w *Wire) pass(from io.Writer, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard[[6]byte(frame[6:12])] = from
	if to := w.heard[[6]byte(frame[:6])]; to != nil {
		_, _ = to.Write(frame) // or it is lost, as on any Ethernet
		return
	}
	for port := range w.ports {
		if port != from {
			_, _ = port.Write(frame)
		}
	}
}
