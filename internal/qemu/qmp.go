package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

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

// qmp runs one command on QEMU's control socket (QEMU Machine Protocol). QEMU
// only answers once the machine is complete: by then it has read every file that
// its command line names.
func (m *Machine) qmp(ctx context.Context, command string) error {
	conn, err := dial(ctx, m.socket(qmpSocket), m.done)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r := json.NewDecoder(conn)
	for _, name := range []string{"qmp_capabilities", command} {
		if _, err := fmt.Fprintf(conn, `{"execute":%q}`, name); err != nil {
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
			if answer.Return != nil {
				break // anything else is the greeting or an event
			}
		}
	}
	return nil
}
