package qemu

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// channelName is the virtio port that commands come in on.
const channelName = "imgbuild.test"

//go:embed guest.sh
var guestScript []byte

//go:embed guest.service
var guestUnit []byte

//go:embed guest.conf
var guestWants []byte

// channelCredentials put the guest's end of the channel into any systemd from 256
// on that has bash and coreutils: credentials can carry units (systemd-debug-
// generator(8)). The image has no test code in it. This gives away nothing:
// whoever can set a machine's SMBIOS tables owns the machine.
func channelCredentials(o Options) map[string][]byte {
	if !o.Channel {
		return map[string][]byte{}
	}
	unit := string(guestUnit)
	for _, v := range o.ChannelEnv {
		unit += "Environment=" + v + "\n"
	}
	return map[string][]byte{
		"imgbuild.test": guestScript,
		"systemd.extra-unit.host-commands.service": []byte(unit),
		"systemd.unit-dropin.multi-user.target":    guestWants,
	}
}

// Result is what a script in the guest left.
type Result struct {
	Stdout, Stderr string
	Code           int // 124: it was still running when the context's time was over
}

// channel is the host's end: one command at a time.
type channel struct {
	turn  chan struct{} // holds one token: whose turn it is
	conn  io.ReadWriteCloser
	lines chan string
	ended chan struct{} // closed by close
	next  int
}

func newChannel(conn io.ReadWriteCloser) *channel {
	c := &channel{turn: make(chan struct{}, 1), conn: conn, lines: make(chan string), ended: make(chan struct{})}
	go c.read()
	return c
}

// close ends the channel; it may only be called once.
func (c *channel) close() {
	close(c.ended)
	_ = c.conn.Close()
}

func (c *channel) read() {
	defer close(c.lines)
	r := bufio.NewReaderSize(c.conn, 1<<16)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		select {
		case c.lines <- strings.TrimSpace(line):
		case <-c.ended:
			return
		}
	}
}

// run sends a script and waits for its answer. While the guest still boots, the
// line waits in the channel.
func (c *channel) run(ctx context.Context, script string) (Result, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
	c.next++
	id := strconv.Itoa(c.next)
	if err := c.send(ctx, fmt.Sprintf("%s %d %s\n", id, seconds(ctx), base64.StdEncoding.EncodeToString([]byte(script)))); err != nil {
		return Result{}, err
	}
	for {
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case line, ok := <-c.lines:
			if !ok {
				return Result{}, errEnded
			}
			words := strings.Fields(line)
			if len(words) == 4 && words[0] == id {
				return parseResult(words)
			} // else: the answer to a command that nobody waits for any more
		}
	}
}

// send writes a line; a guest that has long not read may make it wait.
func (c *channel) send(ctx context.Context, line string) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c.conn, line)
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// seconds are what the guest gives a script before it ends it: the context's
// rest, at least one; 0 for a context without an end.
func seconds(ctx context.Context) int {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, int(time.Until(end).Seconds()))
}

func parseResult(words []string) (Result, error) {
	code, err := strconv.Atoi(words[1])
	stdout, err1 := base64.StdEncoding.DecodeString(strings.TrimPrefix(words[2], "o:"))
	stderr, err2 := base64.StdEncoding.DecodeString(strings.TrimPrefix(words[3], "e:"))
	if err := errors.Join(err, err1, err2); err != nil {
		return Result{}, fmt.Errorf("the guest's answer: %w", err)
	}
	return Result{string(stdout), string(stderr), code}, nil
}
