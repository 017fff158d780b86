package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// port is the slot that a disk can be plugged into while the machine runs; what is
// in it has the same name.
const port = "plug"

// Attach plugs a raw image into the running machine, read-only, in the place of the
// one that Attach has plugged in before. The machine keeps it open.
func (m *Machine) Attach(ctx context.Context, image string) error {
	if m.plugged {
		if err := m.detach(ctx); err != nil {
			return err
		}
	}
	err := m.qmp(ctx, "blockdev-add", map[string]any{"driver": "raw", "node-name": port, "read-only": true, "file": map[string]any{"driver": "file", "filename": image}})
	if err != nil {
		return err
	}
	m.plugged = true
	return m.qmp(ctx, "device_add", map[string]any{"driver": "virtio-blk-pci", "id": port + "-disk", "bus": port, "drive": port})
}

// detach unplugs the disk; the guest takes its time to let go of it.
func (m *Machine) detach(ctx context.Context) error {
	if err := m.qmp(ctx, "device_del", map[string]any{"id": port + "-disk"}); err != nil {
		return err
	}
	for {
		err := m.qmp(ctx, "blockdev-del", map[string]any{"node-name": port})
		if err == nil {
			m.plugged = false
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-m.done:
			return errEnded
		case <-time.After(time.Second):
		}
	}
}

// Link plugs the machine's network cable in, or out.
func (m *Machine) Link(ctx context.Context, up bool) error {
	return m.qmp(ctx, "set_link", map[string]any{"name": "net", "up": up})
}

// Yield lets the host's other processes go before the machine's processors, by nice(2)
// levels: so a machine that does much does not starve those that others wait for.
func (m *Machine) Yield(ctx context.Context, nice int) error {
	var processors []struct {
		Thread int `json:"thread-id"`
	}
	if err := m.ask(ctx, "query-cpus-fast", nil, &processors); err != nil {
		return err
	}
	for _, p := range processors {
		if err := unix.Setpriority(unix.PRIO_PROCESS, p.Thread, nice); err != nil {
			return fmt.Errorf("thread %d of QEMU: %w", p.Thread, err)
		}
	}
	return nil
}

// dial connects to one of QEMU's sockets as soon as it is there.
func dial(ctx context.Context, path string, ended <-chan struct{}) (net.Conn, error) {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ended:
			return nil, errEnded
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// qmp is ask without interest in what comes back.
func (m *Machine) qmp(ctx context.Context, command string, arguments map[string]any) error {
	return m.ask(ctx, command, arguments, nil)
}

// ask runs one command on QEMU's control socket (QEMU Machine Protocol), and reads
// what it returns into what into points at, if that is not nil. QEMU only answers once the machine
// is complete: by then it has read every file that its command line names.
func (m *Machine) ask(ctx context.Context, command string, arguments map[string]any, into any) error {
	conn, err := dial(ctx, m.socket(qmpSocket), m.done)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r, w := json.NewDecoder(conn), json.NewEncoder(conn)
	for _, name := range []string{"qmp_capabilities", command} {
		question := map[string]any{"execute": name}
		if name == command && arguments != nil {
			question["arguments"] = arguments
		}
		if err := w.Encode(question); err != nil {
			return err
		}
		for {
			var answer struct {
				Return json.RawMessage
				Error  *struct{ Desc string }
			}
			if err := r.Decode(&answer); err != nil {
				return err
			}
			if answer.Error != nil {
				return fmt.Errorf("QEMU: %s: %s", name, answer.Error.Desc)
			}
			if answer.Return == nil {
				continue // the greeting or an event
			}
			if name == command && into != nil {
				return json.Unmarshal(answer.Return, into)
			}
			break
		}
	}
	return nil
}
