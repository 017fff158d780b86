package qemu

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// channelName is the virtio port that commands come in on.
const channelName = "imgbuild.test"

//go:embed guest.sh
var guestScript []byte

const guestUnit = `[Unit]
Description=Commands from the test's host
[Service]
LoadCredential=imgbuild.test
ExecStart=/bin/bash %d/imgbuild.test
Environment=HOME=/root KUBECONFIG=/etc/kubernetes/admin.conf
Restart=always
RestartSec=1
`

// channelCredentials put the guest's end of the channel into any systemd from 256
// on: credentials can carry units. The image has no test code in it. This gives
// away nothing: whoever can set a machine's SMBIOS tables owns the machine.
func channelCredentials() map[string][]byte {
	return map[string][]byte{
		"imgbuild.test": guestScript,
		"systemd.extra-unit.imgbuild-test.service": []byte(guestUnit),
		"systemd.unit-dropin.multi-user.target":    []byte("[Unit]\nWants=imgbuild-test.service\n"),
	}
}

// channel is the host's end: one command at a time.
type channel struct {
	mu    sync.Mutex
	conn  net.Conn
	lines chan string
	next  int
}

func openChannel(ctx context.Context, path string, ended <-chan struct{}) (*channel, error) {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			c := &channel{conn: conn, lines: make(chan string)}
			go c.read()
			return c, nil
		}
		select {
		case <-ended:
			return nil, errors.New("the machine ended at once")
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *channel) read() {
	defer close(c.lines)
	r := bufio.NewReaderSize(c.conn, 1<<20)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		c.lines <- strings.TrimSpace(line)
	}
}

// run sends a script and waits for its answer. While the guest still boots, the
// line waits in the channel.
func (c *channel) run(ctx context.Context, script string) (string, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	id := strconv.Itoa(c.next)
	if _, err := fmt.Fprintf(c.conn, "%s %s\n", id, base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return "", 0, err
	}
	for {
		select {
		case <-ctx.Done():
			return "", 0, ctx.Err()
		case line, ok := <-c.lines:
			if !ok {
				return "", 0, errors.New("the machine ended")
			}
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != id {
				continue // the answer to a command that nobody waits for any more
			}
			code, err := strconv.Atoi(words[1])
			if err != nil {
				return "", 0, fmt.Errorf("the guest answers %q", line)
			}
			var out []byte
			if len(words) > 2 {
				if out, err = base64.StdEncoding.DecodeString(words[2]); err != nil {
					return "", 0, fmt.Errorf("the guest's answer: %w", err)
				}
			}
			return string(out), code, nil
		}
	}
}

// qmp sends one command on QEMU's control socket (QEMU Machine Protocol).
func qmp(ctx context.Context, path, command string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	r := json.NewDecoder(conn)
	for _, name := range []string{"", "qmp_capabilities", command} {
		if name != "" {
			if _, err := fmt.Fprintf(conn, `{"execute":%q}`, name); err != nil {
				return err
			}
		}
		var answer struct{ Error *struct{ Desc string } }
		if err := r.Decode(&answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return fmt.Errorf("QEMU: %s: %s", name, answer.Error.Desc)
		}
	}
	return nil
}
