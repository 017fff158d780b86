package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
)

// tftp has the rig serve TFTP on loopback, and gives the address.
func (r *rig) tftp(t testing.TB, wrap func(net.PacketConn) net.PacketConn) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	if wrap != nil {
		conn = wrap(conn)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.serveTFTP(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("TFTP did not end")
		}
	})
	return conn.LocalAddr().String()
}

// get fetches by TFTP; size is what the server says that it has, before.
func get(t testing.TB, addr, name string, block int) (data []byte, size int64, err error) {
	t.Helper()
	c, err := tftp.NewClient(addr)
	must(t, err)
	c.SetTimeout(10 * time.Second)
	c.SetRetries(5)
	if block > 0 {
		c.SetBlockSize(block)
	}
	c.RequestTSize(true)
	from, err := c.Receive(name, "octet")
	if err != nil {
		return nil, 0, err
	}
	if s, ok := from.(tftp.IncomingTransfer); ok {
		size, _ = s.Size()
	}
	var b bytes.Buffer
	_, err = from.WriteTo(&b)
	return b.Bytes(), size, err
}

// mintFor is a machine's ticket.
func (r *rig) mintFor(t testing.TB, mac string) *ticket {
	t.Helper()
	m, err := r.machines.find(who{mac: mac})
	must(t, err)
	k, err := r.mint(m, r.machines.boot(m), "")
	must(t, err)
	return k
}

func TestTFTP(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.ipxe[fileIPXE] = []byte("MZ iPXE")
	addr := r.tftp(t, nil)
	if data, size, err := get(t, addr, "ipxe.efi", 0); err != nil || string(data) != "MZ iPXE" || size != 7 {
		t.Errorf("%q, %d, %v", data, size, err)
	}
	k := r.mintFor(t, "52:54:00:00:00:01")
	name := "m/" + k.id + "/boot.efi"
	for range 3 { // firmware asks for the size first, and says no more
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0") // the answer comes from another port
		must(t, err)
		to, _ := net.ResolveUDPAddr("udp4", addr)
		conn.WriteTo(fmt.Appendf(nil, "\x00\x01%s\x00octet\x00tsize\x000\x00", name), to)
		answer := make([]byte, 100)
		conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		if n, _, err := conn.ReadFrom(answer); err != nil || !strings.Contains(string(answer[:n]), fmt.Sprint(fakeSize)) {
			t.Errorf("tsize: %q, %v", answer[:n], err)
		}
		conn.Close()
	}
	data, size, err := get(t, addr, "/"+name, 1400)
	if err != nil || size != fakeSize {
		t.Fatalf("%d, %v", size, err)
	}
	if slot := inSlot(t, data); !strings.Contains(slot["imgbuild.install"], "/dev/vda") {
		t.Errorf("%v", slot)
	}
	whole := "tftp w1 at 127.0.0.1 sent boot.efi ticket " + k.id[:4] + "… 1048576 bytes"
	ends(t, whole, func() bool { return strings.Contains(r.said(), whole) })
	for _, bad := range []string{name, "m/" + strings.Repeat("0", 32) + "/boot.efi", "m/" + r.mintFor(t, "52:54:00:00:00:04").id + "/boot.efi", "m/" + r.mintFor(t, "52:54:00:00:00:02").id + "/user-data",
		"../machines.yaml", "/etc/passwd", "worker.raw.zst", "m/../../worker.yaml", "ipxe.kpxe", "", strings.Repeat("x", 400), "\x1b[2J"} {
		if data, _, err := get(t, addr, bad, 0); err == nil {
			t.Errorf("%q: %d bytes", bad, len(data))
		} else if !strings.Contains(err.Error(), "the log of imgbuild serve") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	c, err := tftp.NewClient(addr)
	must(t, err)
	if w, err := c.Send("ipxe.efi", "octet"); err == nil {
		if _, err := w.ReadFrom(strings.NewReader("evil")); err == nil {
			t.Error("a file was written")
		}
	}
	if strings.Contains(r.said(), k.id) {
		t.Errorf("%s", r.said())
	}
}

// notUDP hides what a socket is, as a network without a kernel's sockets has it.
type notUDP struct{ net.PacketConn }

// TestTFTPOnePort answers many from one port, where there are no others.
func TestTFTPOnePort(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.ipxe[fileIPXE] = bytes.Repeat([]byte("MZ iPXE "), 10000)
	addr := r.tftp(t, func(c net.PacketConn) net.PacketConn { return notUDP{c} })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if data, _, err := get(t, addr, "ipxe.efi", 0); err != nil || !bytes.Equal(data, r.ipxe[fileIPXE]) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
	all.Wait()
}

// TestTFTPNoise outlives what is not TFTP.
func TestTFTPNoise(t *testing.T) {
	r := start(t, inventoryText, nil)
	r.ipxe[fileIPXE] = []byte("MZ iPXE")
	addr := r.tftp(t, nil)
	conn, err := net.Dial("udp", addr)
	must(t, err)
	defer conn.Close()
	for _, packet := range []string{"", "\x00", "\x00\x01", "\x00\x01x", "\x00\x01\x00\x00", "\x00\x01ipxe.efi\x00", "\x00\x01ipxe.efi\x00octet\x00blksize\x00", "\x00\x01ipxe.efi\x00octet\x00blksize\x00-1\x00tsize\x00x\x00", "\x00\x02x\x00octet\x00", "\x00\x04\x00\x01", "\x00\x05\x00", "\x00\x06\x00", "\x00\x09", strings.Repeat("\xff", 1000)} {
		io.WriteString(conn, packet)
	}
	if data, _, err := get(t, addr, "ipxe.efi", 0); err != nil || string(data) != "MZ iPXE" {
		t.Errorf("%q, %v", data, err)
	}
}
